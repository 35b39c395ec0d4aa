"""How a model is trained."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run.

    steps: optimizer steps; or epochs: how often each example is seen, where only the data say how many steps that is.
    batch: sequences a step (policy) or preference pairs a step (PPM).
    learning_rate: the peak; linear warm-up over `warmup_steps`, then decay to `final_fraction` of it.
    optimizer: 'muon' for matrices with AdamW for the rest, or 'adamw' for all (the paper's).
    max_length: longer sequences are dropped, and counted. buckets: the lengths that batches are padded to.
    checkpoint_every: steps between checkpoints from which a killed run goes on.
    """

    batch: int
    learning_rate: float
    steps: int | None = None
    epochs: float | None = None
    warmup_steps: int = 10
    schedule: Literal["cosine", "linear"] = "linear"
    final_fraction: float = 0.0
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    beta2: float = 0.98
    buckets: tuple[int, ...] = (64, 96, 128, 160)
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"TrainingConfig: expected either steps or epochs, got {self.steps} steps and {self.epochs} epochs"
            )
        if (self.epochs if self.steps is None else self.steps) <= 0 or self.batch < 1:
            raise ValueError(
                f"TrainingConfig: expected steps or epochs above 0, and a batch of 1 or more; got "
                f"{self.steps or self.epochs} and {self.batch}"
            )

    def on(self, examples: int, share: float = 1.0) -> "TrainingConfig":
        """The same with its steps, of so many examples that make up a share of the batches."""
        if self.steps is not None:
            return self
        steps = max(math.ceil(self.epochs * examples / self.batch / share), 1)
        return dataclasses.replace(self, steps=steps, epochs=None)

    @property
    def max_length(self) -> int:
        """The longest sequence that is trained on."""
        return self.buckets[-1]
