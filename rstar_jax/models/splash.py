"""Attention of whole rows by the Pallas kernel for TPUs (splash attention): scores are never in main memory."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from rstar_jax.models.attention import Layout
from rstar_jax.partitioning import spec

_LANES = 128  # of which blocks of keys are a multiple


def whole(rows: Layout, window: int | None = None, block: int = 512):
    """As `attention.whole`, for rows without branches. Where there is no TPU the kernel is interpreted, slowly.

    Padding is a segment of its own that sees itself: a query that saw nothing would have a gradient of 0 * inf.

    Raises: ValueError for branches.
    """
    if rows.branches is not None:
        raise ValueError("splash attention: expected rows without branches; ProgramConfig.attention='xla' knows them")

    def attend(query, key, value, cache):
        del cache
        local = functools.partial(_attend, window=window, block=block)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return local(query, key, value, rows.segments), None
        heads, each = spec("batch", "kv_heads"), spec("batch")
        mapped = jax.shard_map(local, mesh=mesh, in_specs=(heads, heads, heads, each), out_specs=heads, check_vma=False)
        return mapped(query, key, value, rows.segments), None

    return attend


def _attend(query, key, value, segments, *, window, block) -> jax.Array:
    """query [B, K, T, G, H], key and value [B, K, T, H], segments [B, T] -> [B, K, T, G, H]."""
    batch, kv_heads, length, group, head = query.shape
    padded = -(-length // _LANES) * _LANES
    rest = padded - length
    query = query.swapaxes(2, 3).reshape(batch, kv_heads * group, length, head) * head**-0.5
    query, key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, rest), (0, 0))) for x in (query, key, value))
    segments = jnp.pad(segments, ((0, 0), (0, rest)))
    kernel = functools.partial(_kernel, kv_heads * group, padded, window, math.gcd(block, padded))
    output = jax.lax.platform_dependent(
        query, key, value, segments, tpu=kernel(interpret=False), default=kernel(interpret=True)
    )
    output = output[:, :, :length].reshape(batch, kv_heads, group, length, head).swapaxes(2, 3)
    return jnp.where((segments[:, :length] > 0)[:, None, :, None, None], output, 0)


def _kernel(heads: int, length: int, window: int | None, block: int, interpret: bool):
    if window is None:
        mask = masks.CausalMask((length, length))
    else:  # the token itself counts as one of the window
        mask = masks.LocalMask((length, length), window_size=(window - 1, 0), offset=0)
    sizes = splash_attention.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    one = splash_attention.make_splash_mha(
        masks.MultiHeadMask([mask] * heads), head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
    )

    def rows(query, key, value, segments):
        return jax.vmap(one)(query, key, value, splash_attention.SegmentIds(q=segments, kv=segments))

    return rows
