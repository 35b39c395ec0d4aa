"""Tokens that are known are encoded behind their prefixes: prompts, the output of code, candidate steps for the PPM."""

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
    nodes, rows, length = tokens.shape
    model = bind(kind, config, parameters)
    decoder = model.decoder if kind is PreferenceModel else model
    page = cache.pages.shape[-2]
    prefix = pool.gather(config, cache, table, fill)
    valid = pool.slots(own_fill, page)
    positions = jnp.sum(fill, axis=-1)[:, None, None] + jnp.cumsum(valid, axis=-1) - 1  # [M, R, T]
    flat_valid, flat_positions = valid.reshape(-1, length), positions.reshape(-1, length)
    in_reach = attention.reaches(positions.reshape(nodes, -1), prefix.positions, config.window)
    prefix_mask = prefix.valid[:, None] & in_reach  # [M, R * T, P]
    index = jnp.arange(length)
    own_mask = (index[:, None] >= index) & flat_valid[:, None]
    own_mask &= attention.reaches(flat_positions, flat_positions, config.window)

    def attend(query, key, value, prefix_cache):
        shared = attention.shared_part(query, *prefix_cache, prefix_mask)
        own = attention.part(query, key, value, own_mask)
        return attention.normalise(attention.merge(shared, own)), (key, value)

    flat_tokens = tokens.reshape(-1, length)
    hidden, segment = decoder(flat_tokens, flat_positions, attend, prefix.layers)
    last = length - 1 - jnp.argmax(flat_valid[:, ::-1], axis=-1)
    last_hidden = hidden[jnp.arange(nodes * rows), last]
    destination = destination.reshape(nodes * rows, -1)
    cache = pool.store(cache, segment, destination)
    last_page = destination[jnp.arange(nodes * rows), last // page]
    cache = cache._replace(hidden=cache.hidden.at[last_page].set(last_hidden))
    values = model.values(last_hidden) if kind is PreferenceModel else jnp.zeros(nodes * rows)
    return cache, values.reshape(nodes, rows)
