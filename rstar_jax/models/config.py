"""What a decoder looks like."""

import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder of the Qwen2 layout: RMSNorm, rotary positions, SwiGLU, grouped-query attention, tied head.

    dtype: of activations and matrix products. Parameters are kept in fp32.
    """

    vocabulary_size: int
    layers: int
    embed: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    dtype: str = "float32"

    def __post_init__(self):
        if self.heads % self.kv_heads:
            raise ValueError(f"DecoderConfig: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")

    @property
    def jax_dtype(self) -> jnp.dtype:
        """`dtype` as JAX has it."""
        return jnp.dtype(self.dtype)
