"""A model's pool of pages on the devices: keys and values by page id, read as prefixes, written a page at a time.

All functions but `allocate` see one data shard: they run under `shard_map` over the batch axes, so that nothing of a
pool ever crosses to another shard. Letters: M nodes, C pages of a prefix, P = C * page its length in the cache.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from rstar_jax.decoding.shards import shards
from rstar_jax.models.config import DecoderConfig
from rstar_jax.partitioning import spec


class Cache(NamedTuple):
    """Page-major, so that a page is one block of memory. Page 0 takes what is not to be kept."""

    pages: jax.Array  # [pages, L, 2, K, page, H]
    hidden: jax.Array  # [pages, D]: the hidden state of an edge's last token, under the edge's last page


class Prefixes(NamedTuple):
    """Prefixes as attention reads them. Slots that hold no token are not valid."""

    layers: Any  # (keys, values) [L, M, K, P, H], as a decoder takes them
    valid: jax.Array  # bool [M, P]
    positions: jax.Array  # int32 [M, P]: of valid slots, in the text


def specs() -> Cache:
    """How a pool lies on a mesh."""
    return Cache(spec("batch", "layers", None, "kv_heads", None, "head"), spec("batch", "activation"))


def allocate(config: DecoderConfig, pages: int, page: int, mesh: Mesh) -> Cache:
    """A pool of `pages` pages of `page` tokens on every data shard of `mesh`."""
    total = shards(mesh) * pages
    shape = (total, config.layers, 2, config.kv_heads, page, config.head)

    def zeros() -> Cache:
        return Cache(jnp.zeros(shape, config.jax_dtype), jnp.zeros((total, config.embed), config.jax_dtype))

    where = Cache(*(NamedSharding(mesh, own) for own in specs()))
    return jax.jit(zeros, out_shardings=where)()


def slots(fill: jax.Array, page: int) -> jax.Array:
    """bool [..., C * page]: which slots hold a token, if `fill` [..., C] says how many of each page's do."""
    return (jnp.arange(page) < fill[..., None]).reshape(*fill.shape[:-1], -1)


def gather(config: DecoderConfig, cache: Cache, table: jax.Array, fill: jax.Array) -> Prefixes:
    """The prefixes whose pages are `table` int32 [M, C] with `fill` int32 [M, C] tokens on each."""
    blocks = cache.pages[table]  # [M, C, L, 2, K, page, H]
    if config.stacked:
        blocks = jnp.moveaxis(blocks, (3, 2), (0, 1))
        layers = (_dense(blocks[0]), _dense(blocks[1]))
    else:
        layers = [(_dense(blocks[:, :, i, 0]), _dense(blocks[:, :, i, 1])) for i in range(config.layers)]
    return Prefixes(layers, *places(fill, cache.pages.shape[-2]))


def gather_layer(cache: Cache, table: jax.Array, layer: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(keys, values) [M, K, P, H] of one layer of the prefixes whose pages are `table` int32 [M, C]."""
    blocks = cache.pages[table, layer]  # [M, C, 2, K, page, H]
    return _dense(blocks[:, :, 0]), _dense(blocks[:, :, 1])


def places(fill: jax.Array, page: int) -> tuple[jax.Array, jax.Array]:
    """`Prefixes.valid` and `Prefixes.positions` of prefixes with `fill` int32 [M, C] tokens on their pages."""
    valid = slots(fill, page)
    return valid, jnp.cumsum(valid, axis=-1) - 1


def _dense(block: jax.Array) -> jax.Array:
    """[..., M, C, K, page, H] -> [..., M, K, P, H]."""
    block = jnp.moveaxis(block, -4, -3)
    return block.reshape(*block.shape[:-3], -1, block.shape[-1])


def store(cache: Cache, layers: Any, destination: jax.Array) -> Cache:
    """Writes keys and values of R rows, (keys, values) [L, R, K, T, H] or a list, one pair a layer.

    destination: int32 [R, T / page], the pages that they become.
    """
    page, head = cache.pages.shape[-2:]
    if isinstance(layers, list):
        layers = [jnp.stack(arrays) for arrays in zip(*layers, strict=True)]
    blocks = jnp.stack(layers)
    blocks = blocks.reshape(*blocks.shape[:4], -1, page, head).transpose(2, 4, 1, 0, 3, 5, 6)
    flat = blocks.reshape(-1, *blocks.shape[2:])
    return cache._replace(pages=cache.pages.at[destination.reshape(-1)].set(flat.astype(cache.pages.dtype)))
