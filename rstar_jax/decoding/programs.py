"""The two programs of the engine: `expand` samples steps under shared prefixes, `score` judges steps under them.

A prefix is encoded once and read once for all its candidates: attention is computed in parts (shared prefix, the
candidate's own suffix, the current token) that merge. Plain XLA, the same code on CPU, GPU and TPU. Letters: M
prefixes, N candidates a prefix, R scored rows, P prefix length, S suffix length, T candidate length; K key-value
heads, G query heads a key-value head, H head size, L layers, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rstar_jax.models import attention
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder, PreferenceModel
from rstar_jax.models.parameters import Parameters, bind
from rstar_jax.partitioning import constrain


class Samples(NamedTuple):
    """Sampled candidates. Positions from `length` on are undefined."""

    tokens: jax.Array  # int32 [M, N, S]
    length: jax.Array  # int32 [M, N], the stop token included
    logprob: jax.Array  # float32 [M, N], under the sampling distribution at temperature 1
    stopped: jax.Array  # bool [M, N], False: the candidate ran out of room


def _encode(decoder: Decoder, tokens: jax.Array, length: jax.Array):
    """Prefill: hidden states [M, P, D], keys and values [L, M, K, P, H], validity [M, P]."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    valid = positions < length[:, None]
    hidden, cache = decoder(tokens, positions, attention.causal(attention.causal_mask(valid, decoder.config.window)))
    return hidden, cache, valid


def _draw(logits: jax.Array, keys: jax.Array, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One token a row from logits [B, V] by inverting the distribution: one uniform number a row, not V of them."""
    logprobs = jax.nn.log_softmax(logits)
    heated = jax.nn.softmax(logits / jnp.maximum(temperature, 1e-6))
    cumulative = jnp.cumsum(heated, axis=-1)
    uniform = jax.vmap(jax.random.uniform)(keys)[:, None]
    sampled = jnp.sum(cumulative <= uniform * cumulative[:, -1:], axis=-1)
    token = jnp.where(temperature > 0, jnp.minimum(sampled, logits.shape[-1] - 1), jnp.argmax(logits, axis=-1))
    return token.astype(jnp.int32), jnp.take_along_axis(logprobs, token[:, None], axis=-1)[:, 0]


def _attend(config: DecoderConfig, prefix_mask: jax.Array, start: jax.Array, i: jax.Array):
    """The attention of token `i` of every candidate, to its prefix, its own suffix, and itself, as a layer's `attend`.

    prefix_mask bool [M, N, P]; start int32 [M * N], the prefixes' lengths. The cache: (prefix, suffix), a pair each.
    """
    m, n, prefix_length = prefix_mask.shape
    in_reach = attention.reaches((start + i)[:, None], jnp.arange(prefix_length)[None], config.window)
    seen = prefix_mask & in_reach.reshape(prefix_mask.shape)
    itself_mask = jnp.ones((m * n, 1, 1), bool)

    def attend(query, key, value, cache):
        (prefix_key, prefix_value), (suffix_key, suffix_value) = cache
        by_prefix = query.reshape(m, n, *query.shape[1:])[:, :, :, 0].swapaxes(1, 2)  # [M, K, N, G, H]
        shared = attention.part(by_prefix, prefix_key, prefix_value, seen)
        shared = jax.tree.map(lambda x: x.swapaxes(1, 2).reshape(m * n, x.shape[1], 1, *x.shape[3:]), shared)
        index = jnp.arange(suffix_key.shape[2])
        suffix_mask = (index < i) & attention.reaches(i[None], index, config.window)
        suffix_mask = jnp.broadcast_to(suffix_mask, (m * n, *suffix_mask.shape))
        own = attention.part(query, suffix_key, suffix_value, suffix_mask)
        itself = attention.part(query, key, value, itself_mask)
        return attention.normalise(attention.merge(attention.merge(shared, own), itself))

    return attend


def expand(
    config: DecoderConfig,
    candidates: int,
    room: int,
    parameters: Parameters,
    tokens: jax.Array,
    length: jax.Array,
    keys: jax.Array,
    stops: jax.Array,
    temperature: jax.Array,
    vocabulary: jax.Array,
) -> Samples:
    """Samples `candidates` continuations of each prefix, of at most `room` tokens.

    tokens int32 [M, P], length int32 [M] (0: an empty row); keys uint32 [M, 2], the key of each prefix's draws;
    stops int32 [E, W], the endings that end a candidate: its last W tokens, -1 for any. vocabulary: tokens from this id
    on are never drawn (rows that pad the embedding). A draw is keyed by (prefix key, candidate, position) alone.
    """
    decoder = bind(Decoder, config, parameters)
    m, n = tokens.shape[0], candidates
    before = stops.shape[1] - 1  # columns that the longest ending may reach back over before there are tokens
    hidden, prefix, prefix_valid = _encode(decoder, tokens, length)
    last = hidden[jnp.arange(m), jnp.maximum(length - 1, 0)]
    row_keys = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n)))(
        jax.random.wrap_key_data(keys)
    ).reshape(m * n)
    start = jnp.repeat(length, n)
    empty = start == 0
    prefix_mask = jnp.broadcast_to(prefix_valid[:, None], (m, n, tokens.shape[1]))
    shape = (config.layers, m * n, config.kv_heads, room, config.head)
    suffix = (jnp.zeros(shape, config.jax_dtype), jnp.zeros(shape, config.jax_dtype))

    def draw(hidden_rows, i):
        keys_i = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, i)
        logits = decoder.logits(hidden_rows)
        logits = jnp.where(jnp.arange(logits.shape[-1]) < vocabulary, logits, -jnp.inf)
        return _draw(logits, keys_i, temperature)

    def going(state):
        i, done, *_ = state
        return (i < room) & ~jnp.all(done)

    def step(state):
        i, done, token, logprob, out, lengths, suffix = state
        out = jax.lax.dynamic_update_slice(out, token[:, None], (0, before + i))
        lengths = jnp.where(done, lengths, i + 1)
        tail = jax.lax.dynamic_slice(out, (0, i), (m * n, before + 1))
        ended = jnp.all((tail[:, None] == stops) | (stops < 0), axis=-1)  # [M * N, E]
        done = done | jnp.any(ended, axis=-1)
        hidden, (key, value) = decoder(
            token[:, None], (start + i)[:, None], _attend(config, prefix_mask, start, i), (prefix, suffix)
        )
        suffix = tuple(
            jax.lax.dynamic_update_slice(whole, new, (0, 0, 0, i, 0))
            for whole, new in zip(suffix, (key, value), strict=True)
        )
        following, token_logprob = draw(hidden[:, 0], i + 1)
        logprob = logprob + jnp.where(done | (i + 1 >= room), 0.0, token_logprob)
        return i + 1, done, following, logprob, out, lengths, suffix

    first, first_logprob = draw(jnp.repeat(last, n, axis=0), 0)
    out = constrain(jnp.full((m * n, before + room), -1, jnp.int32), "batch", "length")
    state = (jnp.int32(0), empty, first, first_logprob, out, jnp.zeros(m * n, jnp.int32), suffix)
    _, done, _, logprob, out, lengths, _ = jax.lax.while_loop(going, step, state)
    return Samples(
        tokens=out[:, before:].reshape(m, n, room),
        length=lengths.reshape(m, n),
        logprob=logprob.reshape(m, n),
        stopped=done.reshape(m, n),
    )


def score(
    config: DecoderConfig,
    parameters: Parameters,
    tokens: jax.Array,
    length: jax.Array,
    owner: jax.Array,
    candidates: jax.Array,
    candidate_length: jax.Array,
    scale: jax.Array,
) -> jax.Array:
    """Values fp32 [R] in [-1, 1] of candidate steps: tanh(raw score / scale), read at their last token (section 3.3).

    tokens int32 [M, P], length int32 [M]: the prefixes. candidates int32 [R, T], candidate_length int32 [R]; owner
    int32 [R], the prefix that each candidate continues. Only the candidates' own tokens are computed a row.
    """
    model = bind(PreferenceModel, config, parameters)
    _, prefix, prefix_valid = _encode(model.decoder, tokens, length)
    prefix = jax.tree.map(lambda x: x[:, owner], prefix)
    rows, room = candidates.shape
    positions = length[owner][:, None] + jnp.arange(room)
    own_mask = attention.causal_mask(jnp.arange(room) < candidate_length[:, None], config.window)
    prefix_mask = attention.reaches(positions, jnp.arange(tokens.shape[1])[None], config.window)
    prefix_mask &= prefix_valid[owner][:, None]

    def attend(query, key, value, cache):
        shared = attention.part(query, *cache, prefix_mask)
        return attention.normalise(attention.merge(shared, attention.part(query, key, value, own_mask)))

    hidden, _ = model.decoder(candidates, positions, attend, prefix)
    last = hidden[jnp.arange(rows), jnp.maximum(candidate_length - 1, 0)]
    return jnp.tanh(model.scores(last) / scale)
