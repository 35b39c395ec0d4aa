"""Attention as parts that merge: a softmax over several segments of keys is computed segment by segment.

A decoder layer does not know where keys come from. It calls `attend(query, key, value, cache)`, which gives its output
and what is to be kept of the layer; training, prefill, decoding and scoring differ in that function alone. Letters: B
batch, T queries, S keys, K key-value heads, G query heads a key-value head, H head size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e30  # finite, so that a row with no key gives zeros and not NaN


class Part(NamedTuple):
    """Unnormalised attention over one segment of keys, in fp32."""

    output: jax.Array  # [B, K, T, G, H], sum of exp(score - peak) * value
    peak: jax.Array  # [B, K, T, G], the largest score
    total: jax.Array  # [B, K, T, G], sum of exp(score - peak)


def part(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> Part:
    """Attention of `query` [B, K, T, G, H] over one segment `key`, `value` [B, K, S, H] with `mask` [B, T, S].

    Heads stand before time so that both products are plain batched matrix products: other orders cost a transposition
    of the scores, which is most of the time of a decode step on CPU.
    Every exponent is at most 0, masked ones included: where(mask, exp(score - peak), 0) of a masked score that stands
    89 above the peak has the same value, but its gradient is 0 * inf.
    """
    batch, kv_heads, length, group, head = query.shape
    rows = query.reshape(batch, kv_heads, length * group, head)
    scores = jnp.einsum("bkrh,bksh->bkrs", rows, key, preferred_element_type=jnp.float32) * head**-0.5
    mask = jnp.repeat(mask, group, axis=1)[:, None]
    scores = jnp.where(mask, scores, MASKED)
    # A peak cancels when parts are normalised, so nothing is learned through it.
    peak = jax.lax.stop_gradient(jnp.max(scores, axis=-1, initial=MASKED))
    weights = jnp.where(mask, jnp.exp(scores - peak[..., None]), 0.0)
    output = jnp.einsum("bkrs,bksh->bkrh", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    shape = (batch, kv_heads, length, group)
    return Part(output.reshape(*shape, head), peak.reshape(shape), jnp.sum(weights, axis=-1).reshape(shape))


def shared_part(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> Part:
    """Attention of `query` [M * R, K, T, G, H] over segments that R rows share: `key`, `value` [M, K, S, H].

    mask: bool [M, R * T, S]. A segment is read once for all its rows.
    """
    segments, (rows, kv_heads, length) = key.shape[0], query.shape[:3]

    def together(x: jax.Array) -> jax.Array:  # [M * R, K, T, ...] -> [M, K, R * T, ...]
        return x.reshape(segments, -1, *x.shape[1:]).swapaxes(1, 2).reshape(segments, kv_heads, -1, *x.shape[3:])

    def apart(x: jax.Array) -> jax.Array:
        return (
            x.reshape(segments, kv_heads, -1, length, *x.shape[3:])
            .swapaxes(1, 2)
            .reshape(rows, *x.shape[1:2], length, *x.shape[3:])
        )

    return jax.tree.map(apart, part(together(query), key, value, mask))


def merge(a: Part, b: Part) -> Part:
    """The attention over the union of two segments."""
    peak = jnp.maximum(a.peak, b.peak)
    scale_a, scale_b = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
    return Part(
        a.output * scale_a[..., None] + b.output * scale_b[..., None], peak, a.total * scale_a + b.total * scale_b
    )


def normalise(p: Part) -> jax.Array:
    """[B, K, T, G, H]: the softmax-weighted mean of values; zeros where nothing was attended to."""
    return p.output / jnp.where(p.total > 0, p.total, 1.0)[..., None]


def reaches(query: jax.Array, key: jax.Array, window: int | None) -> jax.Array:
    """bool [..., T, S]: does a query at position [..., T] see as far back as a key at position [..., S]?"""
    distance = query[..., :, None] - key[..., None, :]
    return distance < window if window is not None else jnp.ones_like(distance, bool)


class Layout(NamedTuple):
    """Which tokens of a row belong together: several sequences may lie in one row, and a sequence may end in branches.

    A token sees those before it in its row that are of its segment, and of its branch or of the trunk.
    """

    segments: jax.Array  # int32 [B, T], from 1; 0 is padding
    positions: jax.Array  # int32 [B, T], in the sequence
    branches: jax.Array | None = None  # int32 [B, T], from 1; 0 is the trunk that all branches of a segment share

    def mask(self, window: int | None, queries: slice = slice(None), keys: slice = slice(None)) -> jax.Array:
        """bool [B, queries, keys]: what sees what."""
        index = jnp.arange(self.segments.shape[1])
        own, others = self.segments[:, queries, None], self.segments[:, None, keys]
        seen = (index[queries, None] >= index[keys]) & (own == others) & (others > 0)
        if self.branches is not None:
            branch = self.branches[:, None, keys]
            seen &= (branch == 0) | (branch == self.branches[:, queries, None])
        return seen & reaches(self.positions[:, queries], self.positions[:, keys], window)


def layout(valid: jax.Array) -> Layout:
    """One sequence a row: that of its valid tokens. `valid`: bool [B, T]."""
    return Layout(valid.astype(jnp.int32), jnp.maximum(jnp.cumsum(valid, axis=1) - 1, 0))


def whole(rows: Layout, window: int | None = None, block: int = 512):
    """The attention of whole rows to themselves, as a layer's `attend`; nothing is kept of a layer.

    block: queries of which scores are held at a time. They are computed again in the backward pass: cheaper than to
    keep them, by a fifth of a train step on CPU.
    """

    def attend(query, key, value, cache):
        del cache
        length = query.shape[2]
        outputs = []
        for start in range(0, length, block):
            queries, keys = slice(start, start + block), slice(0, min(start + block, length))
            own = jax.checkpoint(_attend_block, static_argnums=(4, 5, 6))
            outputs.append(
                own(query[:, :, queries], key[:, :, keys], value[:, :, keys], rows, window, start, keys.stop)
            )
        return (outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=2)), None

    return attend


def _attend_block(query, key, value, rows: Layout, window: int | None, start: int, stop: int) -> jax.Array:
    mask = rows.mask(window, slice(start, start + query.shape[2]), slice(0, stop))
    return normalise(part(query, key, value, mask))
