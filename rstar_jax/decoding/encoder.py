"""One model's pool, and the batches in which known tokens are encoded into it."""

import bisect
import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from rstar_jax.decoding import by_layer
from rstar_jax.decoding import cache as pool
from rstar_jax.decoding.config import DecodingConfig
from rstar_jax.decoding.extend import extend
from rstar_jax.decoding.pages import Edge
from rstar_jax.decoding.shards import SHARD, on_shards, put, shards
from rstar_jax.decoding.stats import DecodingStats
from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel
from rstar_jax.models.parameters import Parameters


@dataclasses.dataclass(frozen=True)
class Job:
    """Rows to encode behind one prefix: each a run of edges, the first of which stands behind `base`."""

    shard: int
    base: Edge | None
    rows: tuple[tuple[Edge, ...], ...]


class Encoder:
    """A model as the engine sees it: `prepare` makes paths ready to be continued, `encode` runs jobs."""

    def __init__(
        self,
        name: str,
        config: DecoderConfig,
        parameters: Parameters,
        mesh: Mesh,
        decoding: DecodingConfig,
        stats: DecodingStats,
    ):
        """name: "policy", or "ppm", which has scores. Both are numbered by the same page ids."""
        self.name, self.config, self.parameters, self.mesh = name, config, parameters, mesh
        self.cache = pool.allocate(config, decoding.pages, decoding.page, mesh)
        self._kind = PreferenceModel if name == "ppm" else Decoder
        self._decoding, self._stats = decoding, stats
        self._shards = shards(mesh)

    def prepare(self, ends: Sequence[tuple[int, Edge]]) -> None:
        """Encodes what these paths, (shard, last edge) each, have that is not ready; what they share is done once."""
        while True:
            claimed: set[Edge] = set()
            jobs = []
            for shard, end in ends:
                path = end.path()
                done = next((i for i, edge in enumerate(path) if not self._is_ready(edge, edge is end)), len(path))
                run = self._run(path[done:], claimed)
                if run:
                    claimed.update(run)
                    jobs.append(Job(shard, path[done - 1] if done else None, (run,)))
            if not jobs:
                return
            self.encode(jobs, 1)

    def encode(self, jobs: Sequence[Job], rows: int) -> None:
        """Encodes jobs of `rows` rows at most; the PPM's value of each row's last edge is left in its `value`."""
        by_length: dict[int, list[Job]] = {}
        for job in jobs:
            slots = max(self.slots(row) for row in job.rows)
            by_length.setdefault(bucket(slots, self._decoding.extend_buckets), []).append(job)
        waiting = []
        for length, own in sorted(by_length.items()):
            most = self._decoding.extend_slots // (rows * length)
            sizes = [size for size in self._decoding.node_buckets if size <= most] or self._decoding.node_buckets[:1]
            columns = [sorted((job for job in own if job.shard == s), key=_base_pages) for s in range(self._shards)]
            for start in range(0, max(map(len, columns)), sizes[-1]):
                batch = [column[start : start + sizes[-1]] for column in columns]
                nodes = bucket(max(map(len, batch)), sizes)
                waiting.append((batch, nodes, self._encode(batch, nodes, rows, length)))
        if self.name == "ppm":
            for batch, nodes, values in waiting:
                self._note(batch, nodes, np.asarray(values))

    def slots(self, run: Sequence[Edge]) -> int:
        """Slots of a row: its edges' pages."""
        return self._decoding.page * sum(len(edge.pages) for edge in run)

    def _is_ready(self, edge: Edge, last: bool) -> bool:
        return self.name in edge.ready and (edge.hidden or not last or self.name != "policy")

    def _run(self, path: Sequence[Edge], claimed: set[Edge]) -> tuple[Edge, ...]:
        """The first edges of `path` that fit in one row and that no other row encodes now."""
        run: list[Edge] = []
        for edge in path:
            if edge in claimed or (run and self.slots([*run, edge]) > self._decoding.extend_buckets[-1]):
                break
            run.append(edge)
        return tuple(run)

    def _encode(self, batch: Sequence[Sequence[Job]], nodes: int, rows: int, length: int) -> jax.Array:
        """Sends one batch off: `nodes` places a shard. Returns values [shards * nodes, rows], not waited for."""
        page = self._decoding.page
        placed = [(shard * nodes + i, job) for shard, jobs in enumerate(batch) for i, job in enumerate(jobs)]
        paths = [(at, job.base.path() if job.base else []) for at, job in placed]
        table, fill = tables(paths, self._shards * nodes, self._decoding)
        tokens = np.zeros((self._shards * nodes, rows, length), np.int32)
        own_fill, destination = np.zeros((2, self._shards * nodes, rows, length // page), np.int32)
        for at, job in placed:
            for r, run in enumerate(job.rows):
                first = 0
                for edge in run:
                    tokens[at, r, first * page : first * page + len(edge.tokens)] = edge.tokens
                    own_fill[at, r, first : first + len(edge.pages)] = _fill(edge, page)
                    destination[at, r, first : first + len(edge.pages)] = edge.pages
                    first += len(edge.pages)
                    edge.ready.add(self.name)
                if self.name == "policy":
                    run[-1].hidden = True
        self._count(int(own_fill.sum()), tokens.size)
        arrays = put(self.mesh, (table, fill, tokens, own_fill, destination))
        if by_layer.applies(self.config, self.mesh):
            program = functools.partial(by_layer.encode, self.mesh, self._kind, self.config)
        else:
            program = _program(self._kind, self.config, self.mesh)
        with jax.set_mesh(self.mesh):
            self.cache, values = program(self.parameters, self.cache, *arrays)
        return values

    def _count(self, computed: int, slots: int) -> None:
        if self.name == "policy":
            self._stats.encoded_tokens += computed
        else:
            self._stats.scored_tokens += computed
        self._stats.encoded_slots += slots

    def _note(self, batch: Sequence[Sequence[Job]], nodes: int, values: np.ndarray) -> None:
        for shard, jobs in enumerate(batch):
            for i, job in enumerate(jobs):
                for r, run in enumerate(job.rows):
                    run[-1].value = float(values[shard * nodes + i, r])


@functools.cache
def _program(kind: type[nnx.Module], config: DecoderConfig, mesh: Mesh):
    cache = pool.specs()
    inputs = (PartitionSpec(), cache, SHARD, SHARD, SHARD, SHARD, SHARD)
    return on_shards(functools.partial(extend, kind, config), mesh, inputs, (cache, SHARD), donate=(1,))


def bucket(size: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes` that holds `size`."""
    return sizes[bisect.bisect_left(sizes, size)]


def tables(
    placed: Sequence[tuple[int, Sequence[Edge]]], places: int, decoding: DecodingConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(page ids, tokens on each page), int32 [places, C] both, of paths: (place, edges) each."""
    longest = max((sum(len(edge.pages) for edge in path) for _, path in placed), default=0)
    # A step that is longer than a row counts with its prefix, except for its last tokens.
    width = bucket(longest, (*decoding.prefix_pages, 2 * decoding.prefix_pages[-1]))
    table, fill = np.zeros((2, places, width), np.int32)
    for at, path in placed:
        first = 0
        for edge in path:
            table[at, first : first + len(edge.pages)] = edge.pages
            fill[at, first : first + len(edge.pages)] = _fill(edge, decoding.page)
            first += len(edge.pages)
    return table, fill


def _fill(edge: Edge, page: int) -> np.ndarray:
    fill = np.full(len(edge.pages), page, np.int32)
    fill[-1] = len(edge.tokens) - page * (len(edge.pages) - 1)
    return fill


def _base_pages(job: Job) -> int:
    return 0 if job.base is None else sum(len(edge.pages) for edge in job.base.path())
