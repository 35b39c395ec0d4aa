"""The ring: keys and values of the samples that lanes are drawing, all rows writing into the same slot.

A position of its own for each row would become a loop over the rows on TPU. Two ways to write it, for the two ways in
which a decoder keeps its layers (`DecoderConfig.stacked`). Stacked: layers read the ring and their newest keys stand
apart; one update after the last layer writes those of all layers in place. Not stacked: a layer writes its own ring
before it reads it, with keys transposed, which is what a product on CPU reads fastest. Letters: B rows, S slots.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rstar_jax.models import attention
from rstar_jax.models.attention import Part
from rstar_jax.models.config import DecoderConfig
from rstar_jax.partitioning import constrain, spec


def empty(config: DecoderConfig, rows: int, slots: int) -> Any:
    """(keys, values) [L, B, K, S, H]; not stacked: a list of (keys [B, K, H, S], values [B, K, S, H])."""

    def zeros(*shape: int) -> jax.Array:
        names = ("batch", "kv_heads", None, None)
        array = jnp.zeros(shape, config.jax_dtype)
        return constrain(array, *("layers",) * (len(shape) - 4), *names)

    shape = (rows, config.kv_heads, slots, config.head)
    if config.stacked:
        return zeros(config.layers, *shape), zeros(config.layers, *shape)
    return [(zeros(*shape[:2], config.head, slots), zeros(*shape)) for _ in range(config.layers)]


def specs(config: DecoderConfig) -> Any:
    """How a ring lies on a mesh."""
    return spec("layers", "batch", "kv_heads") if config.stacked else spec("batch", "kv_heads")


def attend(
    config: DecoderConfig,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    ring: Any,
    slot: jax.Array,
    kept: jax.Array,
) -> tuple[Part, Any]:
    """A layer's attention to itself and the `kept` [B] tokens before it, and what it leaves for `write`.

    query [B, K, 1, G, H]; key, value [B, K, 1, H] of the tokens that go to `slot`.
    """
    keys, values = ring
    slots = values.shape[-2]
    age = (slot - jnp.arange(slots)) % slots
    mask = age <= kept[:, None]  # [B, S]
    if config.window is not None:
        mask &= age < config.window
    if config.stacked:
        mask &= age > 0
        itself = attention.part(query, key, value, jnp.ones((query.shape[0], 1, 1), bool))
        return attention.merge(attention.part(query, keys, values, mask[:, None]), itself), (key, value)
    keys = jax.lax.dynamic_update_slice_in_dim(keys, key.swapaxes(-1, -2), slot, axis=-1)
    values = jax.lax.dynamic_update_slice_in_dim(values, value, slot, axis=-2)
    return attention.part(query, keys.swapaxes(-1, -2), values, mask[:, None]), (keys, values)


def write(config: DecoderConfig, ring: Any, left: Any, slot: jax.Array) -> Any:
    """The ring after all layers: `left` is what `attend` left, layer by layer."""
    if not config.stacked:
        return left
    return tuple(
        jax.lax.dynamic_update_slice_in_dim(own, new, slot, axis=-2) for own, new in zip(ring, left, strict=True)
    )


def rows(config: DecoderConfig, ring: Any, row: jax.Array) -> Any:
    """A ring of the rows `row` [J] of another, in their order."""
    axis = 1 if config.stacked else 0
    return jax.tree.map(lambda own: jnp.take(own, row, axis=axis), ring)


def take(config: DecoderConfig, ring: Any, row: jax.Array, slots: jax.Array) -> Any:
    """(keys, values) [L, J, K, T, H], or a list, one pair a layer, at `slots` [J, T] of the rows `row` [J]."""

    def values(own: jax.Array) -> jax.Array:  # [..., B, K, S, H] -> [..., J, K, T, H]
        return jnp.moveaxis(own[..., row[:, None], :, slots, :], (0, 1), (-4, -2))

    def keys(own: jax.Array) -> jax.Array:  # [B, K, H, S] -> [J, K, T, H]
        return own[row[:, None], :, :, slots].swapaxes(1, 2)

    if config.stacked:
        return values(ring[0]), values(ring[1])
    return [(keys(own_keys), values(own_values)) for own_keys, own_values in ring]
