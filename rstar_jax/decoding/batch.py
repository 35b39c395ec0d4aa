"""The nodes that are decoded now: their places on the devices, and their lanes, from chunk to chunk."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import Future

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rstar_jax.decoding import by_layer, cache, decode, ring
from rstar_jax.decoding.config import DecodingConfig
from rstar_jax.decoding.encoder import Encoder, tables
from rstar_jax.decoding.endings import Endings
from rstar_jax.decoding.pages import Edge
from rstar_jax.decoding.sampling import Sampling
from rstar_jax.decoding.shards import SHARD, on_shards, put, shards
from rstar_jax.models import DecoderConfig
from rstar_jax.search.protocols import Prefix, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the samples of one batch have in common."""

    samples: int
    room: int
    stops: tuple[str, ...]


@dataclasses.dataclass(kw_only=True)
class Request:
    """Samples that are asked for under one prefix; `edge` is the prefix's last, once it is decoded.

    key: of the draws, see `draw_key`.
    """

    prefix: Prefix
    key: np.ndarray
    steps: list[Step | None]
    future: Future
    shard: int
    edge: Edge | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What an edge holds of a finished sample.

    offset: tokens of the sample before it. last: whether the sample ends with it.
    """

    place: int
    sample: int
    edge: Edge
    offset: int
    last: bool


class Batch:
    """Places for `shape.nodes` nodes on every data shard."""

    def __init__(self, kind: Kind, shape: decode.Shape, endings: Endings, policy: Encoder, decoding: DecodingConfig):
        self.kind, self.shape, self.endings = kind, shape, endings
        self._policy, self._decoding = policy, decoding
        self._mesh, self._shards = policy.mesh, shards(policy.mesh)
        with jax.set_mesh(self._mesh):
            self._lanes, self._finished = _idle(policy.config, shape, self._mesh)()
        self._fresh = np.zeros(self._shards * shape.nodes, bool)
        self._free = [list(range(shape.nodes))[::-1] for _ in range(self._shards)]
        self._seated: dict[int, Request] = {}

    @property
    def empty(self) -> bool:
        """Whether no node is being decoded."""
        return not self._seated

    def has_place(self, shard: int) -> bool:
        """Whether another node of a data shard could be seated."""
        return bool(self._free[shard])

    def seated(self) -> list[tuple[int, Request]]:
        """(place among those of all shards, request), by place."""
        return sorted(self._seated.items(), key=lambda item: item[0])

    def seat(self, request: Request) -> None:
        """Gives a request, whose `edge` is known, a place on its shard."""
        at = request.shard * self.shape.nodes + self._free[request.shard].pop()
        self._seated[at] = request
        self._fresh[at] = True

    def most_seated(self) -> int:
        """Nodes of the data shard that has most of them."""
        return max(self.shape.nodes - len(free) for free in self._free)

    def leave(self, at: int) -> None:
        """Frees a place."""
        del self._seated[at]
        shard, place = divmod(at, self.shape.nodes)
        self._free[shard].append(place)

    def decode(self, vocabulary: int) -> tuple[np.ndarray, decode.Finished, np.ndarray]:
        """One chunk. Returns the ring's tokens int32 [B, S], what is finished (without hidden states), and counts."""
        seated = self.seated()
        places = self._shards * self.shape.nodes
        table, fill = tables([(at, request.edge.path()) for at, request in seated], places, self._decoding)
        last_page = np.zeros(places, np.int32)
        keys = np.zeros((places, 2), np.uint32)
        for at, request in seated:
            last_page[at] = request.edge.pages[-1]
            keys[at] = request.key
        nodes = decode.Nodes(*put(self._mesh, (table, fill, last_page, keys, self._fresh.copy())))
        self._fresh[:] = False
        policy = self._policy
        if by_layer.applies(policy.config, self._mesh):
            program = functools.partial(by_layer.chunk, self._mesh, policy.config, self.shape, self._decoding.sampling)
        else:
            program = _chunk(policy.config, self.shape, self._decoding.sampling, self._mesh)
        with jax.set_mesh(self._mesh):
            self._lanes, self._finished, counts = program(
                policy.parameters,
                policy.cache,
                nodes,
                self._lanes,
                self._finished,
                self.endings.table,
                np.int32(vocabulary),
            )
        return jax.device_get((self._lanes.tokens, self._finished._replace(hidden=None), counts))

    def commit(self, kept: Sequence[Sequence[Part]]) -> None:
        """Copies parts of finished samples, by shard, from the ring to the pages of their edges."""
        width = -(-self.shape.room // self._decoding.page)
        size = self.shape.nodes * self.shape.lanes
        policy = self._policy
        program = _commit(policy.config, self.shape, self._mesh)
        for start in range(0, max(map(len, kept)), size):
            node, sample, offset, last_page = np.zeros((4, self._shards * size), np.int32)
            destination = np.zeros((self._shards * size, width), np.int32)
            for shard, own in enumerate(kept):
                for at, part in enumerate(own[start : start + size], start=shard * size):
                    node[at], sample[at], offset[at] = part.place, part.sample, part.offset
                    destination[at, : len(part.edge.pages)] = part.edge.pages
                    last_page[at] = part.edge.pages[-1] if part.last else 0
            arrays = put(self._mesh, decode.Kept(node, sample, offset, destination, last_page))
            with jax.set_mesh(self._mesh):
                policy.cache = program(policy.cache, self._lanes, self._finished, arrays)

    def resize(self, nodes: int) -> None:
        """Goes on with another number of places, which holds all that are seated."""
        before, self.shape = self.shape, dataclasses.replace(self.shape, nodes=nodes)
        origin = np.full(self._shards * nodes, -1, np.int32)
        seated, fresh = {}, np.zeros(self._shards * nodes, bool)
        self._free = [list(range(nodes))[::-1] for _ in range(self._shards)]
        for at, request in self.seated():
            shard, place = divmod(at, before.nodes)
            to = shard * nodes + self._free[shard].pop()
            seated[to], origin[to], fresh[to] = request, place, self._fresh[at]
        self._seated, self._fresh = seated, fresh
        program = _reseat(self._policy.config, before, self.shape, self._mesh)
        with jax.set_mesh(self._mesh):
            self._lanes, self._finished = program(self._lanes, self._finished, put(self._mesh, origin))


def draw_key(seed: int, key: Sequence[int]) -> np.ndarray:
    """The key, uint32 [2], of the draws under one prefix: independent of batch, order and host."""
    digest = hashlib.sha256(repr((seed, tuple(int(part) for part in key))).encode()).digest()
    return np.frombuffer(digest[:8], np.uint32)


def _lane_specs(config: DecoderConfig) -> decode.Lanes:
    """How lanes lie on a mesh."""
    return decode.Lanes(**dict.fromkeys(decode.Lanes._fields, SHARD) | {"ring": ring.specs(config)})


@functools.cache
def _idle(config: DecoderConfig, shape: decode.Shape, mesh: Mesh):
    begin = functools.partial(decode.idle, config, shape)
    return on_shards(begin, mesh, (), (_lane_specs(config), SHARD))


@functools.cache
def _reseat(config: DecoderConfig, before: decode.Shape, shape: decode.Shape, mesh: Mesh):
    program = functools.partial(decode.reseat, config, before, shape)
    lanes = _lane_specs(config)
    return on_shards(program, mesh, (lanes, SHARD, SHARD), (lanes, SHARD))


@functools.cache
def _chunk(config: DecoderConfig, shape: decode.Shape, sampling: Sampling, mesh: Mesh):
    program = functools.partial(decode.chunk, config, shape, sampling)
    lanes, none = _lane_specs(config), PartitionSpec()
    inputs = (none, cache.specs(), SHARD, lanes, SHARD, none, none)
    return on_shards(program, mesh, inputs, (lanes, SHARD, SHARD), donate=(3, 4))


@functools.cache
def _commit(config: DecoderConfig, shape: decode.Shape, mesh: Mesh):
    program = functools.partial(decode.commit, config, shape)
    inputs = (cache.specs(), _lane_specs(config), SHARD, SHARD)
    return on_shards(program, mesh, inputs, cache.specs(), donate=(0,))
