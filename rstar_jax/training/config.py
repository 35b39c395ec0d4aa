"""How a model is trained."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run.

    steps: optimizer steps. batch: sequences a step (policy) or preference pairs a step (PPM).
    learning_rate: the peak; linear warm-up over `warmup_steps`, then decay to `final_fraction` of it.
    optimizer: 'muon' for matrices with AdamW for the rest, or 'adamw' for all (the paper's).
    max_length: longer sequences are dropped, and counted. buckets: the lengths that batches are padded to.
    checkpoint_every: steps between checkpoints from which a killed run goes on.
    """

    steps: int
    batch: int
    learning_rate: float
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

    @property
    def max_length(self) -> int:
        """The longest sequence that is trained on."""
        return self.buckets[-1]
