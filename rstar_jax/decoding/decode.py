"""Candidate steps are decoded in chunks: lanes that draw one token at a time, and begin the next sample by themselves.

A node has g lanes for its N samples. All rows write their newest token into the same slot of a ring: a lane's sample of
n tokens is in the last n slots. The prefix is gathered from its pages once a chunk, and read once for all lanes of its
node. Letters: M nodes, g lanes a node, B = M * g rows, N samples a node, S slots of the ring, C pages of a prefix,
E endings of W tokens at most.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rstar_jax.decoding import cache as pool
from rstar_jax.decoding import ring as rings
from rstar_jax.decoding.cache import Cache
from rstar_jax.decoding.sampling import Sampling, draw
from rstar_jax.models import attention
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder
from rstar_jax.models.parameters import Parameters, bind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What a decode program is compiled for.

    nodes: of one data shard. lanes: a node's. samples: to draw for a node. room: the most tokens of a sample, its last
    included. steps: of a chunk. ending: tokens of the longest ending.
    """

    nodes: int
    lanes: int
    samples: int
    room: int
    steps: int
    ending: int

    @property
    def ring(self) -> int:
        """Slots: a sample that ends in a chunk's first step is still whole at the chunk's end."""
        return self.room + self.steps


class Nodes(NamedTuple):
    """The nodes that samples are drawn for. An empty place has `fresh` False."""

    table: jax.Array  # int32 [M, C]: pages of the prefix
    fill: jax.Array  # int32 [M, C]: tokens on each
    last_page: jax.Array  # int32 [M]: where the hidden state of the prefix's last token is
    keys: jax.Array  # uint32 [M, 2]: of the draws
    fresh: jax.Array  # bool [M]: the node is new in its place, none of its samples has begun


class Lanes(NamedTuple):
    """What goes on from chunk to chunk."""

    ring: Any  # see `ring`
    tokens: jax.Array  # int32 [B, S]: the ring's tokens
    slot: jax.Array  # int32 [1]: where the next tokens go
    token: jax.Array  # int32 [B]: drawn and not yet in the ring
    count: jax.Array  # int32 [B]: tokens drawn of the present sample
    sample: jax.Array  # int32 [B]: which of its node's samples; -1: none
    ended: jax.Array  # bool [B]: `token` is its last
    stopped: jax.Array  # bool [B]: it ended with an ending, not for want of room
    logprob: jax.Array  # fp32 [B]: the sum so far
    tail: jax.Array  # int32 [B, W - 1]: the tokens before `token`, -1 before the first
    following: jax.Array  # int32 [M]: the next sample to begin


class Finished(NamedTuple):
    """A node's samples that are finished: `length` is 0 of those that are not."""

    lane: jax.Array  # int32 [M, N]: the row that drew it
    first: jax.Array  # int32 [M, N]: slot of its first token
    length: jax.Array  # int32 [M, N]
    logprob: jax.Array  # fp32 [M, N], at temperature 1
    stopped: jax.Array  # bool [M, N]
    hidden: jax.Array  # [M, N, D]: of its last token


def idle(config: DecoderConfig, shape: Shape) -> tuple[Lanes, Finished]:
    """One data shard's lanes before any node is there."""
    m, n, b, s = shape.nodes, shape.samples, shape.nodes * shape.lanes, shape.ring
    number, truth = jnp.zeros(b, jnp.int32), jnp.zeros(b, bool)
    lanes = Lanes(
        ring=rings.empty(config, b, s),
        tokens=jnp.zeros((b, s), jnp.int32),
        slot=jnp.zeros(1, jnp.int32),
        token=number,
        count=number,
        sample=number - 1,
        ended=truth,
        stopped=truth,
        logprob=jnp.zeros(b),
        tail=jnp.full((b, shape.ending - 1), -1, jnp.int32),
        following=jnp.full(m, n, jnp.int32),
    )
    number = jnp.zeros((m, n), jnp.int32)
    hidden = jnp.zeros((m, n, config.embed), config.jax_dtype)
    return lanes, Finished(number, number, number, jnp.zeros((m, n)), jnp.zeros((m, n), bool), hidden)


def chunk(
    config: DecoderConfig,
    shape: Shape,
    sampling: Sampling,
    parameters: Parameters,
    cache: Cache,
    nodes: Nodes,
    lanes: Lanes,
    finished: Finished,
    endings: jax.Array,
    vocabulary: jax.Array,
) -> tuple[Lanes, Finished, jax.Array]:
    """At most `shape.steps` tokens a lane. Also returns int32 [1, 2]: steps, and tokens computed in them.

    endings int32 [E, W]: a sample ends when its last tokens are one of them; -1 matches any. vocabulary: tokens from
    this id on are never drawn (rows that pad the embedding). A draw is keyed by (node's key, sample, position) alone.
    """
    decoder = bind(Decoder, config, parameters)
    prefix = pool.gather(config, cache, nodes.table, nodes.fill)
    draws = look_ahead(shape, cache, nodes, endings, vocabulary)

    def going(state) -> jax.Array:
        step, lanes, _, _ = state
        return (step < shape.steps) & _any_shard(jnp.any(lanes.sample >= 0))

    def body(state):
        step, lanes, finished, computed = state
        slot, position = lanes.slot[0], draws.start + lanes.count - 1
        mask = prefix_mask(config, shape, prefix.valid, prefix.positions, position)
        attend = attend_to(config, mask, lanes.count - 1, slot)
        caches = (prefix.layers, lanes.ring) if config.stacked else list(zip(prefix.layers, lanes.ring, strict=True))
        hidden, left = decoder(lanes.token[:, None], position[:, None], attend, caches)
        lanes = lanes._replace(ring=rings.write(config, lanes.ring, left, slot))
        lanes, finished, busy = advance(decoder, shape, sampling, draws, lanes, finished, hidden[:, 0])
        return step + 1, lanes, finished, computed + busy

    lanes, finished = begin(decoder, shape, sampling, draws, nodes, lanes, finished)
    zero = jnp.int32(0)
    steps, lanes, finished, computed = jax.lax.while_loop(going, body, (zero, lanes, finished, zero))
    return lanes, finished, jnp.stack([steps, computed])[None]


class Draws(NamedTuple):
    """What stays the same in all draws of a chunk."""

    start: jax.Array  # int32 [B]: tokens of the prefix
    hidden: jax.Array  # [B, D]: of the prefix's last token
    keys: jax.Array  # keys [B]
    endings: jax.Array  # int32 [E, W]
    vocabulary: jax.Array  # int32


def look_ahead(shape: Shape, cache: Cache, nodes: Nodes, endings: jax.Array, vocabulary: jax.Array) -> Draws:
    """What samples of these nodes begin with."""
    g = shape.lanes
    return Draws(
        start=jnp.repeat(jnp.sum(nodes.fill, axis=-1), g),
        hidden=jnp.repeat(cache.hidden[nodes.last_page], g, axis=0),
        keys=jnp.repeat(jax.random.wrap_key_data(nodes.keys, impl="threefry2x32"), g),
        endings=endings,
        vocabulary=vocabulary,
    )


def begin(
    decoder: Decoder, shape: Shape, sampling: Sampling, draws: Draws, nodes: Nodes, lanes: Lanes, finished: Finished
) -> tuple[Lanes, Finished]:
    """A chunk before its first step: lanes that are free begin samples."""
    finished = finished._replace(length=jnp.where(nodes.fresh[:, None], 0, finished.length))
    lanes = lanes._replace(following=jnp.where(nodes.fresh, 0, lanes.following))
    return _held(_refill_and_draw(decoder, shape, sampling, draws, lanes, draws.hidden), lanes), finished


def advance(
    decoder: Decoder,
    shape: Shape,
    sampling: Sampling,
    draws: Draws,
    lanes: Lanes,
    finished: Finished,
    hidden: jax.Array,
) -> tuple[Lanes, Finished, jax.Array]:
    """A step after its last layer, `hidden` [B, D]. Also returns int32: lanes whose token it has computed.

    The tokens are noted in their slot, and the next ones drawn.
    """
    busy = jnp.sum(lanes.sample >= 0, dtype=jnp.int32)
    tokens = jax.lax.dynamic_update_slice_in_dim(lanes.tokens, lanes.token[:, None], lanes.slot[0], axis=1)
    lanes = lanes._replace(tokens=tokens, slot=(lanes.slot + 1) % shape.ring)
    lanes, finished = _settle(shape, lanes, finished, hidden)
    return _refill_and_draw(decoder, shape, sampling, draws, lanes, hidden), finished, busy


def _refill_and_draw(
    decoder: Decoder, shape: Shape, sampling: Sampling, draws: Draws, lanes: Lanes, hidden: jax.Array
) -> Lanes:
    """Lanes without a sample begin their node's next one; every lane draws a token from `hidden` [B, D]."""
    free = (lanes.sample < 0).reshape(shape.nodes, shape.lanes)
    candidate = lanes.following[:, None] + jnp.cumsum(free, axis=-1, dtype=jnp.int32) - 1
    begins = free & (candidate < shape.samples)
    following = lanes.following + jnp.sum(begins, axis=-1, dtype=jnp.int32)
    begins, candidate = begins.reshape(-1), candidate.reshape(-1)
    sample = jnp.where(begins, candidate, lanes.sample)
    count = jnp.where(begins, 0, lanes.count)
    hidden = jnp.where(begins[:, None], draws.hidden, hidden)
    fold = jax.vmap(jax.random.fold_in)
    keys = fold(fold(draws.keys, sample), count)
    token, logprob = draw(decoder.logits(hidden), draws.vocabulary, keys, sampling)
    recent = jnp.concatenate([jnp.where(begins[:, None], -1, lanes.tail), token[:, None]], axis=-1)
    stopped = jnp.any(jnp.all((recent[:, None] == draws.endings) | (draws.endings < 0), axis=-1), axis=-1)
    return lanes._replace(
        token=token,
        count=count + 1,
        sample=sample,
        ended=stopped | (count + 1 >= shape.room),
        stopped=stopped,
        logprob=jnp.where(begins, 0.0, lanes.logprob) + logprob,
        tail=recent[:, 1:],
        following=following,
    )


def _settle(shape: Shape, lanes: Lanes, finished: Finished, hidden: jax.Array) -> tuple[Lanes, Finished]:
    """Notes the samples whose last token has been computed (`hidden` [B, D]); their lanes are idle then."""
    m, g, n = shape.nodes, shape.lanes, shape.samples
    over = (lanes.sample >= 0) & lanes.ended
    which = over[:, None] & (lanes.sample[:, None] == jnp.arange(n))  # [B, N]
    which = which.reshape(m, g, n)
    first = (lanes.slot - lanes.count) % shape.ring
    row = jnp.arange(m * g, dtype=jnp.int32)

    def note(old: jax.Array, new: jax.Array) -> jax.Array:
        """old [M, N, ...], new [B, ...]: one lane at most is over for a sample."""
        new = new.reshape(m, g, *new.shape[1:])
        shaped = which.reshape(*which.shape, *(1,) * (new.ndim - 2))
        picked = jnp.sum(jnp.where(shaped, new[:, :, None], 0), axis=1, dtype=old.dtype)
        return jnp.where(jnp.any(shaped, axis=1), picked, old)

    finished = Finished(*map(note, finished, (row, first, lanes.count, lanes.logprob, lanes.stopped, hidden)))
    return lanes._replace(sample=jnp.where(over, -1, lanes.sample)), finished


def _any_shard(busy: jax.Array) -> jax.Array:
    """Whether any data shard is busy, if they have to keep step: devices that share layers meet in every step."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["tensor"] == 1:
        return busy
    return jax.lax.pmax(busy.astype(jnp.int32), mesh.manual_axes) > 0


def _held(drawn: Lanes, before: Lanes) -> Lanes:
    """`drawn`, but lanes that had a sample `before` keep the token that they drew at the end of the last chunk."""
    had = before.sample >= 0
    names = ("token", "count", "sample", "ended", "stopped", "logprob", "tail")

    def keep(name: str) -> jax.Array:
        old, new = getattr(before, name), getattr(drawn, name)
        return jnp.where(had.reshape(-1, *(1,) * (old.ndim - 1)), old, new)

    return drawn._replace(**{name: keep(name) for name in names})


def prefix_mask(
    config: DecoderConfig, shape: Shape, valid: jax.Array, positions: jax.Array, position: jax.Array
) -> jax.Array:
    """bool [M, g, P]: which slots of their prefixes (`valid`, `positions` [M, P]) tokens at `position` [B] see."""
    in_reach = attention.reaches(position.reshape(shape.nodes, shape.lanes), positions, config.window)
    return valid[:, None] & in_reach


def attend_to(config: DecoderConfig, mask: jax.Array, kept: jax.Array, slot: jax.Array):
    """Attention of one token a row to its prefix by `mask`, the `kept` [B] tokens before it in the ring, and itself."""

    def attend(query, key, value, caches):
        prefix_cache, ring = caches
        own, left = rings.attend(config, query, key, value, ring, slot, kept)
        shared = attention.shared_part(query, *prefix_cache, mask)
        return attention.normalise(attention.merge(shared, own)), left

    return attend


def reseat(
    config: DecoderConfig, before: Shape, shape: Shape, lanes: Lanes, finished: Finished, origin: jax.Array
) -> tuple[Lanes, Finished]:
    """Lanes and samples of the shape `before` in places of `shape`, which differs in its nodes alone.

    origin int32 [M]: the place from which each comes, -1 for those that are empty now.
    """
    g = shape.lanes
    moved = origin >= 0
    place = jnp.maximum(origin, 0)
    rows = (place[:, None] * g + jnp.arange(g)).reshape(-1)
    moved_rows = jnp.repeat(moved, g)
    empty, nothing = idle(config, shape)

    def gather(old: jax.Array, new: jax.Array, at: jax.Array, there: jax.Array) -> jax.Array:
        return jnp.where(there.reshape(-1, *(1,) * (new.ndim - 1)), old[at], new)

    per_row = ("tokens", "token", "count", "sample", "ended", "stopped", "logprob", "tail")
    values = {name: gather(getattr(lanes, name), getattr(empty, name), rows, moved_rows) for name in per_row}
    lanes = Lanes(
        **values,
        ring=rings.rows(config, lanes.ring, rows),
        slot=lanes.slot,
        following=gather(lanes.following, empty.following, place, moved),
    )
    finished = Finished(*(gather(old, new, place, moved) for old, new in zip(finished, nothing, strict=True)))
    return lanes, finished._replace(lane=jnp.arange(shape.nodes)[:, None] * g + finished.lane % g)


class Kept(NamedTuple):
    """Parts of finished samples that go into the pool; rows without one have page 0 everywhere."""

    node: jax.Array  # int32 [J]
    sample: jax.Array  # int32 [J]
    offset: jax.Array  # int32 [J]: tokens of the sample before the part
    destination: jax.Array  # int32 [J, pages of `room`]
    last_page: jax.Array  # int32 [J]: where the hidden state of the sample's last token goes, 0 for parts before it


def commit(config: DecoderConfig, shape: Shape, cache: Cache, lanes: Lanes, finished: Finished, kept: Kept) -> Cache:
    """Copies finished samples from the ring to their pages, before the ring goes over them."""
    row, first = finished.lane[kept.node, kept.sample], finished.first[kept.node, kept.sample] + kept.offset
    length = kept.destination.shape[-1] * cache.pages.shape[-2]
    index = (first[:, None] + jnp.arange(length)) % shape.ring  # [J, T]
    cache = pool.store(cache, rings.take(config, lanes.ring, row, index), kept.destination)
    hidden = finished.hidden[kept.node, kept.sample]
    return cache._replace(hidden=cache.hidden.at[kept.last_page].set(hidden))
