"""What a decoder looks like."""

import dataclasses

import jax.numpy as jnp

DTYPES = ("float32", "bfloat16")
LINEAR = ("query", "key", "value", "out", "gate", "up", "down")  # the matrices of a layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's rotary frequencies for long contexts: low ones are divided by `factor`, high ones stay.

    Wavelengths beyond `original_length / low_frequency` are low, those below `original_length / high_frequency` high;
    between the two the frequencies are interpolated.
    """

    factor: float
    low_frequency: float
    high_frequency: float
    original_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Position interpolation: all rotary frequencies are divided by `factor`."""

    factor: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685): a layer's matrix W acts as W + alpha / rank * A B, and W stays as it is.

    dropout: of what A reads, in training. targets: the matrices that have one.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = LINEAR

    def __post_init__(self):
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"Lora: expected a rank of 1 or more and a dropout in [0, 1), got {self.rank} and {self.dropout}"
            )
        if not self.targets or set(self.targets) - set(LINEAR):
            raise ValueError(f"Lora.targets: expected some of {', '.join(LINEAR)}, got {self.targets}")

    @property
    def scale(self) -> float:
        """Of the product of A and B."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A pre-norm decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention. Families differ in its fields.

    vocabulary_size: rows of the embedding; a checkpoint may pad them beyond its tokenizer's ids.
    tied: the head is the embedding (Qwen2.5-1.5B, SmolLM2), or has rows of its own (7B, Phi-3).
    qkv_bias: the projections to queries, keys and values add a bias (Qwen2).
    rope_scaling: None where frequencies are theta's alone. window: how many tokens back attention reaches, the token
    itself included (Phi-3); None: all.
    dtype: of activations and matrix products; those of float32 are float32 on every device, not bf16 or TF32.
    parameter_dtype: what parameters are kept in, and their gradients summed in.
    stacked: parameters and caches of all layers are one array with a leading layer axis, and a loop runs over them: one
    layer is compiled for all. False: each layer has its own, for programs on CPU, where XLA would copy each slice of a
    stack before it multiplies by it (a third of the time of a step).
    lora: adapters beside the matrices of layers; None: there are none.
    turned: matrices stand with their outputs first, as checkpoints have them, and are multiplied from the left. A CPU
    then reads those that are larger than its caches twice as fast for some 32 tokens or fewer, as fast for more.
    """

    vocabulary_size: int
    layers: int
    embed: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    tied: bool = True
    qkv_bias: bool = True
    rope_theta: float = 10_000.0
    rope_scaling: Llama3Scaling | LinearScaling | None = None
    window: int | None = None
    norm_epsilon: float = 1e-6
    dtype: str = "float32"
    parameter_dtype: str = "float32"
    stacked: bool = True
    turned: bool = False
    lora: Lora | None = None

    def __post_init__(self):
        for name in ("dtype", "parameter_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(f"DecoderConfig.{name}={getattr(self, name)!r}: expected {' or '.join(DTYPES)}")
        if self.heads % self.kv_heads:
            raise ValueError(f"DecoderConfig: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")

    @property
    def jax_dtype(self) -> jnp.dtype:
        """`dtype` as JAX has it."""
        return jnp.dtype(self.dtype)
