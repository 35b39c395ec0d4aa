"""How a model is trained."""

import dataclasses
import math
from typing import Literal

from rstar_jax.models.config import DTYPES, Lora


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramConfig:
    """How a train step is computed; nothing here changes what it computes, but for the last digits.

    remat: what is kept of a layer for its backward pass: 'none' for all, 'attention' for its input and the attention's
    output, 'layer' for its input alone.
    attention: 'xla', in blocks of queries, or 'splash', the kernel for TPUs, which no PPM can use: its rows have
    branches. attention_block: queries of a block.
    loss_chunk: tokens of a device of which logits are held at a time.
    microbatch: rows of the whole mesh that are computed at a time; the gradients of several are summed up, as those of
    one batch. None: all rows of a step.
    """

    remat: Literal["none", "attention", "layer"] = "none"
    attention: Literal["xla", "splash"] = "xla"
    attention_block: int = 512
    loss_chunk: int = 1024
    microbatch: int | None = None

    def __post_init__(self):
        for name, known in (("remat", ("none", "attention", "layer")), ("attention", ("xla", "splash"))):
            if getattr(self, name) not in known:
                raise ValueError(f"ProgramConfig.{name}={getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name in ("attention_block", "loss_chunk", "microbatch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"ProgramConfig.{name} must be at least 1, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run.

    steps: optimizer steps; or epochs: how often each example is seen, where only the data say how many steps that is.
    batch: sequences a step (policy), or pairs (PPM): as many nodes of trees as have so many on average.
    buckets: the lengths that rows are padded to, one sequence a row; or, if `packed`, one length, of rows that hold as
    many sequences as there is room for. Longer sequences are left out, and counted.
    learning_rate: the peak; linear warm-up over `warmup_steps`, then decay to `final_fraction` of it.
    optimizer: 'adamw' (the paper's), or 'muon' for matrices with AdamW for the rest, where matrices are not sharded.
    weight_decay: of matrices and embeddings. gradient_clip: the largest norm of a gradient.
    dtype: what is computed in; parameters, moments and sums of gradients are float32. None: the model's own.
    lora: adapters that are trained instead of the model itself, and merged into it at the end; None: there are none.
    checkpoint_every: steps between checkpoints from which a killed run goes on.
    evaluate_every: steps between measurements of the loss on held-out examples, where there are some; None: at the end.
    keep: 'last', or 'best': the parameters of the lowest loss on held-out examples.
    program: how a step is computed.
    """

    batch: int
    learning_rate: float
    steps: int | None = None
    epochs: float | None = None
    warmup_steps: int = 10
    schedule: Literal["cosine", "linear"] = "linear"
    final_fraction: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    beta2: float = 0.98
    buckets: tuple[int, ...] = (64, 96, 128, 160)
    packed: bool = False
    dtype: str | None = None
    lora: Lora | None = None
    checkpoint_every: int = 500
    evaluate_every: int | None = None
    keep: Literal["last", "best"] = "last"
    seed: int = 0
    program: ProgramConfig = ProgramConfig()

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
        if self.packed and len(self.buckets) != 1:
            raise ValueError(f"TrainingConfig.buckets: packed rows have one length, got {self.buckets}")
        if self.dtype not in (None, *DTYPES):
            raise ValueError(f"TrainingConfig.dtype={self.dtype!r}: expected {' or '.join(DTYPES)}")
        for name, known in (("optimizer", ("adamw", "muon")), ("keep", ("last", "best"))):
            if getattr(self, name) not in known:
                raise ValueError(f"TrainingConfig.{name}={getattr(self, name)!r}: expected {' or '.join(known)}")
        for name in ("checkpoint_every", "evaluate_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"TrainingConfig.{name} must be at least 1, got {getattr(self, name)}")

    @property
    def decisive(self) -> "TrainingConfig":
        """The same without what changes no result but in its last digits."""
        return dataclasses.replace(self, program=ProgramConfig(), checkpoint_every=1)

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
