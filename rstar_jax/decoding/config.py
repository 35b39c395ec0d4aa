"""How steps are decoded and scored."""

import dataclasses

from rstar_jax.decoding.sampling import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Shapes are bucketed: every program is compiled once and used again. Counts are for one data shard of the mesh.

    temperature, top_k, top_p: see `Sampling`.
    max_prefix_tokens: of a prompt with its path; a longer one is the caller's to refuse.
    max_step_tokens: room for one step (search) and `max_block_tokens` for a whole code block (greedy, sampling).
    page: tokens of a page; an edge of the tree leaves half a page empty on average. pages: of the pool.
    prefix_buckets: slots that prefixes are padded to; the last should leave room for half-empty pages, because a prefix
    with more is laid out, and encoded, anew. One of `max_prefix_tokens` is added if none holds it.
    node_buckets: how many nodes are decoded, and prefixes encoded behind, at once. samples_per_lane: samples that a
    lane draws for its node, one after another: more keep lanes busy when samples differ in length.
    chunk_steps: tokens that a lane draws before the host looks at it.
    extend_buckets: slots that prompts, outputs and candidate steps are padded to. extend_slots: the most slots of one
    batch of them. score_rows: candidates that are scored side by side behind one prefix.
    stacked: whether programs loop over layers (see `DecoderConfig.stacked`); None: on all devices but CPUs.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    max_prefix_tokens: int = 1024
    max_step_tokens: int = 128
    max_block_tokens: int = 512
    page: int = 16
    pages: int = 1024
    prefix_buckets: tuple[int, ...] = (256, 512)
    node_buckets: tuple[int, ...] = (8, 32)
    samples_per_lane: int = 4
    chunk_steps: int = 32
    extend_buckets: tuple[int, ...] = (16, 64, 256)
    extend_slots: int = 8192
    score_rows: int = 8
    stacked: bool | None = None

    def __post_init__(self):
        buckets = (*self.prefix_buckets, *self.extend_buckets)
        if any(bucket % self.page for bucket in buckets):
            raise ValueError(f"DecodingConfig: buckets must be whole pages of {self.page} tokens, got {buckets}")
        for name in ("prefix_buckets", "node_buckets", "extend_buckets"):
            if list(getattr(self, name)) != sorted(set(getattr(self, name))) or not getattr(self, name):
                raise ValueError(f"DecodingConfig.{name}: expected growing sizes, got {getattr(self, name)}")
        for name in ("max_step_tokens", "max_block_tokens"):
            if not 0 < getattr(self, name) <= self.max_prefix_tokens:
                raise ValueError(
                    f"DecodingConfig.{name} ({getattr(self, name)}): expected 1 to max_prefix_tokens "
                    f"({self.max_prefix_tokens})"
                )
        needed = 1 + self.prefix_pages[-1] + self.extend_buckets[-1] // self.page
        if self.pages < needed:
            raise ValueError(f"DecodingConfig.pages ({self.pages}) must be {needed} for one prefix and one step to fit")

    @property
    def sampling(self) -> Sampling:
        """The distribution that tokens are drawn from."""
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    @property
    def prefix_pages(self) -> tuple[int, ...]:
        """Pages that prefixes are padded to; the last bucket holds `max_prefix_tokens` in one piece."""
        buckets = tuple(bucket // self.page for bucket in self.prefix_buckets)
        most = -(-self.max_prefix_tokens // self.page)
        return buckets if buckets[-1] >= most else (*buckets, most)
