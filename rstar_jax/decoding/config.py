"""How steps are decoded and scored."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Shapes are bucketed: every program is compiled once and used again.

    temperature: 0 is greedy.
    max_step_tokens: room for one step (search) and `max_block_tokens` for a whole code block (greedy, sampling).
    prefix_buckets: lengths that prompts with their path are padded to; a longer one is the caller's to refuse.
    row_buckets: how many prefixes are decoded, or candidates scored, at once.
    score_buckets: lengths that scored candidates are padded to.
    value_scale: a step's value is tanh(raw score / value_scale): 1 in the paper, 5 in the released code.
    """

    temperature: float = 1.0
    max_step_tokens: int = 24
    max_block_tokens: int = 128
    prefix_buckets: tuple[int, ...] = (64, 96, 128, 160)
    row_buckets: tuple[int, ...] = (16, 64)
    score_buckets: tuple[int, ...] = (16, 32)
    value_scale: float = 1.0

    @property
    def max_prefix_tokens(self) -> int:
        """The longest prefix that can be continued."""
        return self.prefix_buckets[-1]
