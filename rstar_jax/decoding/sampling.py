"""Drawing one token a row from logits: temperature, top-k, top-p, greedy.

Nothing here sorts the vocabulary, draws a random number for each of its tokens, or sums it up in one chain: a row has
one uniform number, looked up first among sums of blocks and then within one block, and the borders of top-k and top-p
are found by bisection.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

_SHORT = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """The distribution that tokens are drawn from.

    temperature: 0 is greedy. top_k: only tokens whose logit is among the k largest (ties at the border count in).
    top_p: only the most likely tokens that together first reach this probability at `temperature`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")


GREEDY = Sampling(temperature=0.0)


def draw(
    logits: jax.Array, vocabulary: jax.Array | int, keys: jax.Array, sampling: Sampling
) -> tuple[jax.Array, jax.Array]:
    """One token a row: int32 [B], and fp32 [B], the logarithm of its probability at temperature 1, nothing left out.

    logits: fp32 [B, V]. vocabulary: tokens from this id on are padding and have no probability. keys: [B], one a row: a
    draw depends on its own row alone.
    """
    drawable = jnp.arange(logits.shape[-1]) < vocabulary
    peak = jnp.max(logits, axis=-1, keepdims=True, where=drawable, initial=-jnp.inf)

    def weights(temperature: float) -> jax.Array:
        # A barrier, so that the exponential is computed once and not again in everything that reads it.
        return jax.lax.optimization_barrier(jnp.where(drawable, jnp.exp((logits - peak) / temperature), 0.0))

    plain = weights(1.0)
    if sampling.temperature == 0:
        token = jnp.argmax(jnp.where(drawable, logits, -jnp.inf), axis=-1).astype(jnp.int32)
    else:
        heated = plain if sampling.temperature == 1 else weights(sampling.temperature)
        token = _pick(_restricted(heated, logits, drawable, sampling), jax.vmap(jax.random.uniform)(keys))
    own = jnp.take_along_axis(logits, token[:, None], axis=-1)
    total = jnp.sum(_columns(plain), axis=(1, 2))
    return token, (own - peak)[:, 0] - jnp.log(total)


def _restricted(weights: jax.Array, logits: jax.Array, drawable: jax.Array, sampling: Sampling) -> jax.Array:
    """`weights` [B, V] with zeros where top-k or top-p leaves a token out."""
    if sampling.top_k is None and sampling.top_p in (None, 1):
        return weights
    logits = jnp.where(drawable, logits, -jnp.inf)
    if sampling.top_k is not None:
        border = _highest_border(logits, lambda seen: jnp.sum(seen, axis=-1) >= min(sampling.top_k, logits.shape[-1]))
        weights = jnp.where(logits >= border[:, None], weights, 0.0)
    if sampling.top_p not in (None, 1):
        enough = sampling.top_p * jnp.sum(weights, axis=-1)
        border = _highest_border(logits, lambda seen: jnp.sum(jnp.where(seen, weights, 0.0), axis=-1) >= enough)
        weights = jnp.where(logits >= border[:, None], weights, 0.0)
    return weights


def _highest_border(logits: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """fp32 [B]: the largest border for which `enough(logits >= border)` holds, bool [B]. Exact: floats are 32 bits."""
    ordered = _ordered(logits)

    def halve(_, bounds):
        low, high = bounds  # enough at low, not at high
        middle = (low & high) + ((low ^ high) >> 1)
        holds = enough(ordered >= middle[:, None])
        return jnp.where(holds, middle, low), jnp.where(holds, high, middle)

    rows = logits.shape[0]
    start = jnp.full(rows, jnp.iinfo(jnp.int32).min), jnp.full(rows, jnp.iinfo(jnp.int32).max)
    low, _ = jax.lax.fori_loop(0, 32, halve, start)
    return jax.lax.bitcast_convert_type(jnp.where(low < 0, low ^ jnp.iinfo(jnp.int32).max, low), jnp.float32)


def _ordered(x: jax.Array) -> jax.Array:
    """int32 that compare as the floats do."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)


def _columns(weights: jax.Array) -> jax.Array:
    """[B, V] as [B, V / C, C]: a sum over the middle axis is a sum of vectors, also where V is split over devices."""
    rows, vocabulary = weights.shape
    return weights.reshape(rows, -1, max(math.gcd(vocabulary, 1024) // 4, 1))


def _pick(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """int32 [B]: tokens by `weights` [B, V], where a running sum passes the share `uniform` [B] of the whole.

    The sum runs column by column of `_columns`: first the column is found, then the token in it.
    """
    columns = _columns(weights)
    sums = jnp.sum(columns, axis=1)
    aim = uniform * jnp.sum(sums, axis=-1)
    column, aim = _descend(sums, aim)
    own = jnp.take_along_axis(columns, column[:, None, None], axis=2)[:, :, 0]
    length = own.shape[-1]
    if length <= _SHORT:
        row, _ = _descend(own, aim)
        return row * columns.shape[-1] + column
    # A long column is cut into pieces, and found in the same way: running sums over thousands are slow.
    pieces = jnp.pad(own, ((0, 0), (0, -length % _SHORT))).reshape(own.shape[0], -1, _SHORT)
    piece, aim = _descend(jnp.sum(pieces, axis=-1), aim)
    within, _ = _descend(jnp.take_along_axis(pieces, piece[:, None, None], axis=1)[:, 0], aim)
    return (piece * _SHORT + within) * columns.shape[-1] + column


def _descend(parts: jax.Array, aim: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which of `parts` [B, X] a running sum passes `aim` [B] in, int32 [B], and what of the aim is left for that part.

    Rounding may carry an aim past the sum: the last part of any weight is the one then.
    """
    sums = jnp.cumsum(parts, axis=-1)
    last = parts.shape[-1] - 1 - jnp.argmax(parts[:, ::-1] > 0, axis=-1)
    index = jnp.minimum(jnp.sum(sums <= aim[:, None], axis=-1), last).astype(jnp.int32)
    before = jnp.take_along_axis(sums - parts, index[:, None], axis=-1)[:, 0]
    return index, jnp.maximum(aim - before, 0.0)
