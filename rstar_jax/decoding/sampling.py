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


def draw(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """One token a row: int32 [B], and fp32 [B], the logarithm of its probability at temperature 1, nothing left out.

    logits: fp32 [B, V], -inf for what is never drawn. keys: [B], one a row: a draw depends on its own row alone.
    """
    peak = jnp.max(logits, axis=-1, keepdims=True)
    plain = jnp.exp(logits - peak)
    if sampling.temperature == 0:
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    else:
        weights = plain if sampling.temperature == 1 else jnp.exp((logits - peak) / sampling.temperature)
        token = _pick(_restricted(weights, logits, sampling), jax.vmap(jax.random.uniform)(keys))
    own = jnp.take_along_axis(logits, token[:, None], axis=-1)
    return token, (own - peak)[:, 0] - jnp.log(jnp.sum(plain, axis=-1))


def _restricted(weights: jax.Array, logits: jax.Array, sampling: Sampling) -> jax.Array:
    """`weights` [B, V] with zeros where top-k or top-p leaves a token out."""
    if sampling.top_k is not None:
        border = _highest_border(logits, lambda seen: jnp.sum(seen, axis=-1) >= min(sampling.top_k, logits.shape[-1]))
        weights = jnp.where(logits >= border[:, None], weights, 0.0)
    if sampling.top_p is not None and sampling.top_p < 1:
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


def _pick(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """int32 [B]: the token at which the running sum of `weights` [B, V] passes the share `uniform` [B] of the whole.

    Blocks divide the vocabulary evenly, over the devices that share it as well.
    """
    rows, vocabulary = weights.shape
    size = max(math.gcd(vocabulary, 1024) // 8, 1)
    blocks = weights.reshape(rows, vocabulary // size, size)
    sums = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)
    aim = uniform[:, None] * sums[:, -1:]
    block = _first_beyond(sums, aim)
    before = jnp.where(block > 0, jnp.take_along_axis(sums, jnp.maximum(block - 1, 0), axis=-1), 0.0)
    own = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    inside = _first_beyond(jnp.cumsum(own, axis=-1), aim - before)
    # Rounding may carry the aim past a block's own sum: the last token of any weight is the one.
    last = size - 1 - jnp.argmax(own[:, ::-1] > 0, axis=-1)[:, None]
    return (block * size + jnp.minimum(inside, last))[:, 0].astype(jnp.int32)


def _first_beyond(sums: jax.Array, aim: jax.Array) -> jax.Array:
    """int32 [B, 1]: the first index at which a running sum [B, X] exceeds `aim` [B, 1]; the last one if none does."""
    below = jnp.sum(sums <= aim, axis=-1, keepdims=True, dtype=jnp.int32)
    return jnp.minimum(below, sums.shape[-1] - 1)
