"""Attention as parts that merge: a softmax over several segments of keys is computed segment by segment.

A decoder layer does not know where keys come from. It calls `attend(query, key, value, cache)`, and training, prefill,
decoding and scoring differ in that function alone. Letters: B batch, T queries, S keys, K key-value heads, G query
heads a key-value head, H head size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e30  # finite, so that a row with no key gives zeros and not NaN


class Part(NamedTuple):
    """Unnormalised attention over one segment of keys, in fp32."""

    output: jax.Array  # [B, T, K, G, H], sum of exp(score - peak) * value
    peak: jax.Array  # [B, T, K, G], the largest score
    total: jax.Array  # [B, T, K, G], sum of exp(score - peak)


def part(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> Part:
    """Attention of `query` [B, T, K, G, H] over one segment `key`, `value` [B, K, S, H] with `mask` [B, T, S]."""
    scores = jnp.einsum("btkgh,bksh->btkgs", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    scores = jnp.where(mask[:, :, None, None, :], scores, MASKED)
    peak = jnp.max(scores, axis=-1)
    weights = jnp.where(mask[:, :, None, None, :], jnp.exp(scores - peak[..., None]), 0.0)
    output = jnp.einsum("btkgs,bksh->btkgh", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return Part(output, peak, jnp.sum(weights, axis=-1))


def merge(a: Part, b: Part) -> Part:
    """The attention over the union of two segments."""
    peak = jnp.maximum(a.peak, b.peak)
    scale_a, scale_b = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
    return Part(
        a.output * scale_a[..., None] + b.output * scale_b[..., None], peak, a.total * scale_a + b.total * scale_b
    )


def normalise(p: Part) -> jax.Array:
    """[B, T, K, G, H]: the softmax-weighted mean of values; zeros where nothing was attended to."""
    return p.output / jnp.maximum(p.total, 1e-30)[..., None]


def causal_mask(valid: jax.Array) -> jax.Array:
    """[B, T, T]: each position sees the valid positions up to itself. `valid`: bool [B, T]."""
    length = valid.shape[1]
    return jnp.tril(jnp.ones((length, length), bool))[None] & valid[:, None, :]


def causal(mask: jax.Array):
    """The attention of a whole sequence to itself under `mask` [B, T, T], as a layer's `attend`."""

    def attend(query, key, value, cache):
        del cache
        return normalise(part(query, key, value, mask))

    return attend
