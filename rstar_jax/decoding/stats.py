"""What the engine did: the figures behind its metrics."""

import dataclasses


@dataclasses.dataclass(kw_only=True)
class DecodingStats:
    """Counts since the engine began.

    sampled_tokens: of finished samples. decoded_tokens: computed by lanes. encoded_tokens, scored_tokens: computed
    behind prefixes by the policy (prompts, outputs, what had been evicted) and by the PPM. lane_steps: steps times
    lanes, busy or not; encoded_slots: the same for encoding and scoring, padding included. chunks: decode programs that
    ran. seconds: in which chunks were decoded and steps scored, their inputs made ready included.
    """

    sampled_tokens: int = 0
    decoded_tokens: int = 0
    encoded_tokens: int = 0
    scored_tokens: int = 0
    lane_steps: int = 0
    encoded_slots: int = 0
    chunks: int = 0
    seconds: float = 0.0

    def copy(self) -> "DecodingStats":
        """These figures, as they are now."""
        return dataclasses.replace(self)

    def since(self, before: "DecodingStats") -> "DecodingStats":
        """What has been added to an earlier `copy`."""
        own, old = dataclasses.asdict(self), dataclasses.asdict(before)
        return DecodingStats(**{name: own[name] - old[name] for name in own})

    @property
    def lane_utilisation(self) -> float:
        """The share of lane steps that computed a token."""
        return self.decoded_tokens / self.lane_steps if self.lane_steps else 0.0
