"""The engine: one page pool, the policy that samples steps from it, the PPM that scores them into it.

A prefix is looked up in the page tree; what is not there is encoded (`encoder`); lanes draw candidates behind it
(`decode`), which go into the pool when they are finished, so that a chosen candidate is a prefix that is there already.
Every token is computed once by each model, as long as there are pages.
"""

import collections
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from jax.sharding import Mesh

from rstar_jax.decoding import decode
from rstar_jax.decoding.batch import Batch, Kind, Part, Request, draw_key
from rstar_jax.decoding.config import DecodingConfig
from rstar_jax.decoding.encoder import Encoder, Job, bucket
from rstar_jax.decoding.endings import Endings
from rstar_jax.decoding.pages import Edge, PageTree
from rstar_jax.decoding.shards import shards
from rstar_jax.decoding.stats import DecodingStats
from rstar_jax.models import DecoderConfig, parameters
from rstar_jax.models.parameters import Parameters
from rstar_jax.search.protocols import Prefix, Step
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer

_REMEMBERED = 65_536  # trees whose data shard is remembered
_BEYOND_CACHES = 2**18  # numbers of a matrix that is read from memory, not from a core's caches


class Engine:
    """The policy as search's `StepSampler`, the PPM as its `StepScorer`. Either may be missing."""

    def __init__(
        self,
        model: DecoderConfig,
        tokenizer: Tokenizer,
        mesh: Mesh,
        config: DecodingConfig,
        *,
        policy: Parameters | None = None,
        ppm: Parameters | None = None,
        ppm_model: DecoderConfig | None = None,
        seed: int = 0,
    ):
        """ppm_model: what the PPM looks like, if it is not the policy's size.

        Raises: ValueError for a mesh that spreads parameters, of which every program would gather all.
        """
        if mesh.shape["fsdp"] > 1:
            raise ValueError(
                f"MeshConfig.fsdp ({mesh.shape['fsdp']}): expected 1 for decoding, which has no use for spread "
                "parameters; `data` and `tensor` take the devices"
            )
        self.config, self.seed = config, seed
        self.stats = DecodingStats()
        self._tokenizer, self._mesh, self._shards = tokenizer, mesh, shards(mesh)
        self._trees = [PageTree(config.pages, config.page, config.extend_buckets[-1]) for _ in range(self._shards)]
        self._shard_of: collections.OrderedDict[int, int] = collections.OrderedDict()
        self._next_shard = itertools.cycle(range(self._shards))

        def encoder(name: str, config_: DecoderConfig, values: Parameters) -> Encoder:
            values = parameters.as_computed(config_, values)
            on_cpu = mesh.devices.flat[0].platform == "cpu"
            if not (config.stacked if config.stacked is not None else not on_cpu):
                turned = config_.embed * config_.mlp >= _BEYOND_CACHES
                config_, values = parameters.unstacked(config_, values, turned)
            return Encoder(name, config_, values, mesh, config, self.stats)

        self._policy = encoder("policy", model, policy) if policy is not None else None
        self._ppm = encoder("ppm", ppm_model or model, ppm) if ppm is not None else None
        self._waiting: collections.deque[tuple[Kind, Request]] = collections.deque()
        self._batch: Batch | None = None

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`."""
        return self._tokenizer.encode(text)

    def begin(self) -> None:
        """Forgets what was encoded, and which tree was on which data shard: what comes next is computed as at first.

        For work that may be resumed: its numbers do not depend on what the engine did before, to the last bit. Raises
        RuntimeError while something is decoded that was not cancelled.
        """
        self._give_up_cancelled()
        if self._waiting or (self._batch is not None and not self._batch.empty):
            raise RuntimeError("the engine cannot begin anew while it decodes")
        self._batch = None  # its ring stands where it stood
        for tree in self._trees:
            tree.clear()
        self._shard_of.clear()
        self._next_shard = itertools.cycle(range(self._shards))

    @property
    def evicted_tokens(self) -> int:
        """Tokens of edges that had to make room."""
        return sum(tree.evicted_tokens for tree in self._trees)

    @property
    def computed_per_unique_token(self) -> float:
        """Tokens that the policy computed, over those that it would have computed with room for everything."""
        computed = self.stats.decoded_tokens + self.stats.encoded_tokens
        again = sum(tree.returned_tokens for tree in self._trees)
        return computed / (computed - again) if computed > again else 1.0

    @property
    def occupancy(self) -> float:
        """The share of all pages that edges own."""
        return sum(tree.occupied for tree in self._trees) / sum(tree.total for tree in self._trees)

    # Sampling

    def expand(
        self, prefixes: Sequence[Prefix], n: int, *, stops: Sequence[str] = markers.STEP_STOPS
    ) -> list[list[Step]]:
        """`n` candidates under each prefix; whole code blocks get the larger room of `max_block_tokens`."""
        futures = [self.submit(prefix, n, stops=stops) for prefix in prefixes]
        while not all(future.done() for future in futures):
            self.advance()
        return [future.result() for future in futures]

    def submit(self, prefix: Prefix, n: int, *, stops: Sequence[str] = markers.STEP_STOPS) -> Future[list[Step]]:
        """Asks for `n` candidates under a prefix; `advance` until the future has them: `list[Step]`.

        Who cancels the future takes the question back.
        Raises: ValueError for a prefix longer than `max_prefix_tokens`.
        """
        if not 0 < len(prefix.tokens) <= self.config.max_prefix_tokens:
            raise ValueError(
                f"prefix {prefix.key} of {len(prefix.tokens)} tokens: DecodingConfig allows 1 to "
                f"{self.config.max_prefix_tokens}"
            )
        room = self.config.max_step_tokens if markers.END_OF_STEP in stops else self.config.max_block_tokens
        kind = Kind(samples=n, room=room, stops=tuple(stops))
        key, shard = draw_key(self.seed, prefix.key), self._shard(prefix)
        request = Request(prefix=prefix, key=key, steps=[None] * n, future=Future(), shard=shard)
        self._waiting.append((kind, request))
        return request.future

    def advance(self) -> None:
        """Decodes one chunk: as many tokens as it has steps, in every lane that has something to do."""
        self._give_up_cancelled()
        if self._batch is None or self._batch.empty:
            if not self._waiting:
                return
            self._batch = self._next_batch()
        else:
            self._fit(self._batch)
        self._admit(self._batch)
        start = time.perf_counter()
        on_host = self._batch.decode(len(self._tokenizer))
        self.stats.seconds += time.perf_counter() - start
        self._collect(self._batch, *on_host)

    def _give_up_cancelled(self) -> None:
        """Takes what nobody asks for any more from those that wait, and from their places with its lanes."""
        if any(request.future.cancelled() for _, request in self._waiting):
            self._waiting = collections.deque(own for own in self._waiting if not own[1].future.cancelled())
        seated = [] if self._batch is None else self._batch.seated()
        cancelled = [(at, request) for at, request in seated if request.future.cancelled()]
        for at, request in cancelled:
            self._batch.leave(at)
            request.edge.unpin()
        if len(cancelled) == len(seated) > 0:
            self._batch = None  # its lanes draw on
        elif cancelled:
            self._batch.resize(self._batch.shape.nodes)  # which lays the lanes of empty places idle

    def _next_batch(self) -> Batch:
        """Places for those that wait longest and those of their kind."""
        kind = self._waiting[0][0]
        nodes = self._places(self._asked(kind))
        endings = Endings(self._tokenizer, kind.stops)
        shape = decode.Shape(
            nodes=nodes,
            lanes=-(-kind.samples // self.config.samples_per_lane),
            samples=kind.samples,
            room=kind.room,
            steps=self.config.chunk_steps,
            ending=endings.table.shape[1],
        )
        if self._batch is not None and (kind, shape) == (self._batch.kind, self._batch.shape):
            return self._batch
        return Batch(kind, shape, endings, self._policy, self.config)

    def _asked(self, kind: Kind) -> int:
        """Waiting requests of a kind, on the data shard that has most of them."""
        asked = collections.Counter(request.shard for own, request in self._waiting if own == kind)
        return max(asked.values(), default=0)

    def _places(self, nodes: int) -> int:
        return bucket(min(nodes, self.config.node_buckets[-1]), self.config.node_buckets)

    def _fit(self, batch: Batch) -> None:
        """Gives a batch the places that are asked for now: more wait since it began, or most of it has ended."""
        nodes = self._places(batch.most_seated() + self._asked(batch.kind))
        if nodes != batch.shape.nodes:
            batch.resize(nodes)

    def _admit(self, batch: Batch) -> None:
        """Gives free places to those that wait for them, as far as there are pages, and encodes their prefixes."""
        admitted: list[Request] = []
        refused: list[tuple[Kind, Request]] = []
        while self._waiting:
            kind, request = self._waiting.popleft()
            if kind != batch.kind or not batch.has_place(request.shard):
                refused.append((kind, request))
                continue
            edge = self._find(request.shard, request.prefix.tokens)
            if edge is None:
                refused.append((kind, request))
                break
            request.edge = edge
            edge.pin()
            batch.seat(request)
            admitted.append(request)
        self._waiting.extendleft(reversed(refused))
        if batch.empty:
            raise ValueError(f"DecodingConfig.pages ({self.config.pages}): one prefix and what is kept do not fit")
        self._policy.prepare([(request.shard, request.edge) for request in admitted])

    def _find(self, shard: int, tokens: Sequence[int]) -> Edge | None:
        """The edge at which a prefix ends; laid out anew if too many half-empty pages make it longer than a bucket."""
        tree = self._trees[shard]
        edge = tree.insert(tokens)
        if edge is not None and sum(len(own.pages) for own in edge.path()) > self.config.prefix_pages[-1]:
            edge = tree.insert(tokens, anew=True)
        return edge

    def _collect(self, batch: Batch, tokens: np.ndarray, finished: decode.Finished, counts: np.ndarray) -> None:
        """Makes steps of the samples that are finished now, keeps them in the pool, and frees places."""
        shape, stats = batch.shape, self.stats
        stats.chunks += 1
        stats.decoded_tokens += int(counts[:, 1].sum())
        stats.lane_steps += int(counts[:, 0].sum()) * shape.nodes * shape.lanes
        kept: list[list[Part]] = [[] for _ in range(self._shards)]
        for at, request in batch.seated():
            shard, place = divmod(at, shape.nodes)
            for i, step in enumerate(request.steps):
                length = int(finished.length[at, i])
                if step is not None or length == 0:
                    continue
                row = shard * shape.nodes * shape.lanes + finished.lane[at, i]
                ids = tokens[row].take(finished.first[at, i] + np.arange(length), mode="wrap")
                ids = tuple(ids.tolist())
                stats.sampled_tokens += length
                request.steps[i] = batch.endings.step(ids, finished.logprob[at, i], finished.stopped[at, i])
                edge = self._trees[shard].add(request.edge, ids) if finished.stopped[at, i] else None
                if edge is not None:
                    kept[shard] += _new_parts(place, i, request.edge, edge)
        batch.commit(kept)
        for part in itertools.chain.from_iterable(kept):
            part.edge.unpin()
        for at, request in batch.seated():
            if None not in request.steps:
                batch.leave(at)
                request.edge.unpin()
                request.future.set_result(request.steps)

    # Scoring

    def score(self, prefixes: Sequence[Prefix], candidates: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """One value in [-1, 1] for each candidate (token ids, appended output included) of each prefix."""
        results = [np.zeros(len(own), np.float32) for own in candidates]
        batch: list[tuple[int, int, int, Edge, Edge]] = []  # prefix, candidate, shard, edge of prefix, of candidate

        def finish() -> None:
            self._score(batch)
            for i, j, _, _, edge in batch:
                results[i][j] = edge.value
                edge.unpin()
            batch.clear()

        def with_room(find: Callable[[], Edge | None]) -> Edge:
            """What `find` finds, pinned; to make room, what waits is scored, then decoding goes on."""
            while (edge := find()) is None:
                if batch:
                    finish()
                elif self._batch is not None and not self._batch.empty:
                    self.advance()
                else:
                    raise ValueError(f"DecodingConfig.pages ({self.config.pages}): a prefix and a step do not fit")
            edge.pin()
            return edge

        for i, (prefix, own) in enumerate(zip(prefixes, candidates, strict=True)):
            shard = self._shard(prefix)
            tree = self._trees[shard]
            base = with_room(lambda shard=shard, tokens=prefix.tokens: self._find(shard, tokens))
            for j, tokens in enumerate(own):
                if not len(tokens):
                    raise ValueError(f"prefix {prefix.key}: candidate {j} has no token to score")
                edge = with_room(lambda tree=tree, base=base, tokens=tokens: tree.add(base, tokens))
                batch.append((i, j, shard, base, edge))
            base.unpin()  # its candidates are pinned
        finish()
        return results

    def _score(self, batch: Sequence[tuple[int, int, int, Edge, Edge]]) -> None:
        """Gives every candidate edge of `batch` its value."""
        start = time.perf_counter()
        runs: dict[tuple[int, Edge], list[tuple[Edge, ...]]] = {}
        for _, _, shard, base, edge in batch:
            if edge.value is None:
                run = self._last_run(base, edge)
                rows = runs.setdefault((shard, run[0].parent), [])
                if run not in rows:
                    rows.append(run)
        self._ppm.prepare(list(runs))
        most = self.config.score_rows
        jobs = []
        for (shard, base), rows in runs.items():
            rows.sort(key=self._ppm.slots)
            jobs += [Job(shard, base, tuple(rows[i : i + most])) for i in range(0, len(rows), most)]
        self._ppm.encode(jobs, most)
        self.stats.seconds += time.perf_counter() - start

    def _last_run(self, base: Edge, edge: Edge) -> tuple[Edge, ...]:
        """The edges that are encoded in the row of a candidate behind `base`: as many of the last as fit in it."""
        run = (edge,)
        while (above := run[0].parent) is not base:
            if self._ppm.slots((above, *run)) > self.config.extend_buckets[-1]:
                break
            run = (above, *run)
        return run

    def _shard(self, prefix: Prefix) -> int:
        """All of a tree is on one data shard; trees take turns."""
        tree = prefix.key[0]
        if tree not in self._shard_of:
            self._shard_of[tree] = next(self._next_shard)
            if len(self._shard_of) > _REMEMBERED:
                self._shard_of.popitem(last=False)
        return self._shard_of[tree]


def _new_parts(place: int, sample: int, above: Edge, end: Edge) -> list[Part]:
    """What is to be written of a sample that begins behind `above` and ends at `end`: it may take several edges, some
    of them written before. They count as ready from now on, and are pinned until their pages are written.
    """
    path = []
    while end is not above:
        path.append(end)
        end = end.parent
    parts, offset = [], 0
    for edge in reversed(path):
        if "policy" not in edge.ready:
            edge.ready.add("policy")
            edge.hidden = edge is path[0]
            edge.pin()
            parts.append(Part(place, sample, edge, offset, last=edge is path[0]))
        offset += len(edge.tokens)
    return parts
