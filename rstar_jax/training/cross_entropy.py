"""Next-token cross-entropy that never holds the logits of a batch, nor the head or its gradient on one device.

The head's rows lie spread over the mesh axes of `head_vocab`; a chunk of hidden states is gathered over the batch axes
among these, each device computes the logits of all of them by its own rows, and maxima, sums and gradients are put
together again. A chunk's gradients are made while its logits are there: its logits are computed once, not twice.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rstar_jax.partitioning import spec


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """(sum of weight * cross-entropy, sum of weight * whether the target is the most likely token), fp32.

    hidden [B, T, D] by head [V, D] are the logits; they are products of the hidden states' dtype, summed in fp32.
    targets int [B, T]; weights [B, T], of no gradient. chunk: how many tokens of a device's rows are done at a time.
    Gradients are those of the first sum, by hidden and head.
    """
    return _over_mesh(hidden, head, targets, weights, chunk, with_gradients=False)[0]


def _forward(hidden, head, targets, weights, chunk):
    return _over_mesh(hidden, head, targets, weights, chunk, with_gradients=True)


def _backward(chunk, gradients, up):
    by_hidden, by_head = gradients
    return (up[0] * by_hidden).astype(by_hidden.dtype), up[0] * by_head, None, None


cross_entropy.defvjp(_forward, _backward)


def _over_mesh(hidden, head, targets, weights, chunk, with_gradients):
    """((loss, right), (gradients by hidden, by head) or None)."""
    local = functools.partial(_local, chunk=chunk, with_gradients=with_gradients)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return local(hidden, head, targets, weights, batch_axes=(), vocab_axes={})
    rows, table, nothing = spec("batch"), spec("head_vocab"), PartitionSpec()
    several = {axis: size for axis, size in mesh.shape.items() if size > 1}
    local = functools.partial(
        local,
        batch_axes=tuple(axis for axis in rows[0] if axis in several),
        vocab_axes={axis: several[axis] for axis in table[0] if axis in several},
    )
    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, table, rows, rows),
        out_specs=((nothing, nothing), (rows, table) if with_gradients else None),
        check_vma=False,
    )
    return mapped(hidden, head, targets, weights)


def _local(hidden, head, targets, weights, *, chunk, with_gradients, batch_axes, vocab_axes):
    """What one device does with its rows of the batch and of the head."""
    gathered = tuple(axis for axis in batch_axes if axis in vocab_axes)  # over which rows of the batch are put together
    summed = tuple(axis for axis in vocab_axes if axis not in gathered)
    apart = tuple(axis for axis in batch_axes if axis not in vocab_axes)
    precision = jax.lax.Precision.HIGHEST if hidden.dtype == jnp.float32 else None
    product = functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)
    own_head = head.astype(hidden.dtype)
    first = head.shape[0] * _place(vocab_axes)
    ids = first + jnp.arange(head.shape[0])
    everywhere = tuple(vocab_axes)

    def one(by_head, inputs):
        h, t, w = (_gather(x, gathered) for x in inputs)
        logits = product("bcd,vd->bcv", h, own_head)
        peak = _over(jax.lax.pmax, jnp.max(logits, axis=-1), everywhere)
        weight = jnp.exp(logits - peak[..., None])
        total = _over(jax.lax.psum, jnp.sum(weight, axis=-1), everywhere)
        hit = ids == t[..., None]
        target = _over(jax.lax.psum, jnp.sum(jnp.where(hit, logits, 0.0), axis=-1), everywhere)
        sums = jnp.sum(w * (peak + jnp.log(total) - target)), jnp.sum(w * (target >= peak))
        if not with_gradients:
            return by_head, (sums, None)
        by_logit = ((weight / total[..., None] - hit) * w[..., None]).astype(h.dtype)
        by_hidden = product("bcv,vd->bcd", by_logit, own_head).astype(h.dtype)
        by_hidden = _over(jax.lax.psum, by_hidden, summed)
        if gathered:
            by_hidden = jax.lax.psum_scatter(by_hidden, gathered, scatter_dimension=0, tiled=True)
        return by_head + product("bcv,bcd->vd", by_logit, h), (sums, by_hidden)

    batch, length, _ = hidden.shape
    count = -(-length // min(max(chunk // batch, 1), length))
    size = -(-length // count)  # chunks of one size, so that little is padded
    chunks = [_cut(x, count, size) for x in (hidden, targets, weights.astype(jnp.float32))]
    start = jnp.zeros(head.shape if with_gradients else (), jnp.float32)
    if count == 1:
        by_head, (sums, by_hidden) = one(start, [x[0] for x in chunks])
        sums, by_hidden = jax.tree.map(lambda x: x[None], (sums, by_hidden))
    else:
        by_head, (sums, by_hidden) = jax.lax.scan(one, start, chunks)
    loss, right = (_over(jax.lax.psum, jnp.sum(x), apart) for x in sums)
    if not with_gradients:
        return (loss, right), None
    by_hidden = by_hidden.swapaxes(0, 1).reshape(batch, count * size, -1)[:, :length]
    by_head = _over(jax.lax.psum, by_head, apart)
    return (loss, right), (by_hidden, by_head.astype(head.dtype))


def _cut(x: jax.Array, count: int, size: int) -> jax.Array:
    """[B, T, ...] -> [count, B, size, ...], zeros behind the end."""
    x = jnp.pad(x, ((0, 0), (0, count * size - x.shape[1])) + ((0, 0),) * (x.ndim - 2))
    return x.reshape(x.shape[0], count, size, *x.shape[2:]).swapaxes(0, 1)


def _gather(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return jax.lax.all_gather(x, axes, axis=0, tiled=True) if axes else x


def _over(reduction, x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return reduction(x, axes) if axes else x


def _place(axes: dict[str, int]) -> jax.Array | int:
    """Which part of an array that lies over these axes {name: size}, the first the outermost, is this device's."""
    place = 0
    for axis, size in axes.items():
        place = place * size + jax.lax.axis_index(axis)
    return place
