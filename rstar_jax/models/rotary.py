"""Rotary position embedding: queries and keys are turned by angles that grow with their position."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rstar_jax.models.config import DecoderConfig, LinearScaling, Llama3Scaling


def frequencies(config: DecoderConfig) -> np.ndarray:
    """Radians a position, fp64 [H / 2]."""
    half = config.head // 2
    plain = config.rope_theta ** (-np.arange(half) / half)
    match config.rope_scaling:
        case None:
            return plain
        case LinearScaling(factor=factor):
            return plain / factor
        case Llama3Scaling() as scaling:
            turns = scaling.original_length * plain / (2 * math.pi)  # over the original context
            kept = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
            kept = np.clip(kept, 0.0, 1.0)
            return plain * (kept + (1 - kept) / scaling.factor)


def angles(config: DecoderConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sin, cos) fp32 [B, T, H / 2] of positions [B, T]: made once for all layers."""
    turned = positions.astype(jnp.float32)[..., None] * frequencies(config).astype(np.float32)
    return jnp.sin(turned), jnp.cos(turned)


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """x [B, T, N, H] turned; a head's halves pair up, not its neighbours, as in all the layouts read here."""
    sin, cos = (angle[:, :, None] for angle in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
