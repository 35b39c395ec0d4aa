"""Tokens that are known are encoded behind their prefixes: prompts, the output of code, candidate steps for the PPM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.decoding import cache as pool
from rstar_jax.decoding.cache import Cache
from rstar_jax.models import attention
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import PreferenceModel
from rstar_jax.models.parameters import Parameters, bind


def extend(
    kind: type[nnx.Module],
    config: DecoderConfig,
    parameters: Parameters,
    cache: Cache,
    table: jax.Array,
    fill: jax.Array,
    tokens: jax.Array,
    own_fill: jax.Array,
    destination: jax.Array,
) -> tuple[Cache, jax.Array]:
    """Encodes R rows behind each of M prefixes and keeps what they leave: the cache, and the PPM's values fp32 [M, R].

    table, fill int32 [M, C]: the prefixes' pages. tokens int32 [M, R, T], laid out as their pages are; own_fill,
    destination int32 [M, R, T / page]: how many tokens each page of a row holds, and which page of the pool it becomes.
    The hidden state and the value are those of a row's last token. A policy has no values: zeros.
    """
    model = bind(kind, config, parameters)
    decoder = model.decoder if kind is PreferenceModel else model
    prefix = pool.gather(config, cache, table, fill)
    rows = lay_out(config, prefix.valid, prefix.positions, tokens, own_fill, cache.pages.shape[-2])
    hidden, segment = decoder(rows.tokens, rows.positions, attend_to(rows), prefix.layers)
    cache = pool.store(cache, segment, destination.reshape(rows.tokens.shape[0], -1))
    return finish(model, cache, rows, destination, hidden)


class Rows(NamedTuple):
    """R rows behind each of M prefixes, one below the other, and what their tokens see."""

    tokens: jax.Array  # int32 [M * R, T]
    valid: jax.Array  # bool [M * R, T]
    positions: jax.Array  # int32 [M * R, T]
    prefix_mask: jax.Array  # bool [M, R * T, P]
    own_mask: jax.Array  # bool [M * R, T, T]


def lay_out(
    config: DecoderConfig,
    prefix_valid: jax.Array,
    prefix_positions: jax.Array,
    tokens: jax.Array,
    own_fill: jax.Array,
    page: int,
) -> Rows:
    """Rows of `tokens` [M, R, T], `own_fill` [M, R, T / page], behind prefixes whose slots are given, [M, P] both."""
    nodes, _, length = tokens.shape
    valid = pool.slots(own_fill, page)
    before = jnp.sum(prefix_valid, axis=-1)[:, None, None]
    positions = before + jnp.cumsum(valid, axis=-1) - 1  # [M, R, T]
    flat_valid, flat_positions = valid.reshape(-1, length), positions.reshape(-1, length)
    in_reach = attention.reaches(positions.reshape(nodes, -1), prefix_positions, config.window)
    index = jnp.arange(length)
    own_mask = (index[:, None] >= index) & flat_valid[:, None]
    own_mask &= attention.reaches(flat_positions, flat_positions, config.window)
    return Rows(tokens.reshape(-1, length), flat_valid, flat_positions, prefix_valid[:, None] & in_reach, own_mask)


def attend_to(rows: Rows):
    """Attention of rows to their prefixes and to themselves; a layer leaves its keys and values."""

    def attend(query, key, value, prefix_cache):
        shared = attention.shared_part(query, *prefix_cache, rows.prefix_mask)
        own = attention.part(query, key, value, rows.own_mask)
        return attention.normalise(attention.merge(shared, own)), (key, value)

    return attend


def finish(
    model: nnx.Module, cache: Cache, rows: Rows, destination: jax.Array, hidden: jax.Array
) -> tuple[Cache, jax.Array]:
    """Keeps the `hidden` [M * R, T, D] of each row's last token; what `extend` returns."""
    count, length = rows.tokens.shape
    nodes, each, pages = destination.shape
    index = jnp.arange(count)
    last = length - 1 - jnp.argmax(rows.valid[:, ::-1], axis=-1)
    last_hidden = hidden[index, last]
    last_page = destination.reshape(count, pages)[index, last // cache.pages.shape[-2]]
    cache = cache._replace(hidden=cache.hidden.at[last_page].set(last_hidden))
    values = model.values(last_hidden) if isinstance(model, PreferenceModel) else jnp.zeros(count)
    return cache, values.reshape(nodes, each)
