"""The policy and the PPM behind the protocols of search: host-side batching around the jitted programs."""

import bisect
import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from rstar_jax import partitioning
from rstar_jax.decoding import programs
from rstar_jax.decoding.config import DecodingConfig
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.parameters import Parameters
from rstar_jax.search.protocols import Prefix, Step
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer

_CANDIDATES_PER_ROW = 2  # scored at once for each prefix row: about as many as differ among a node's candidates


def _bucket(size: int, buckets: Sequence[int], what: str) -> int:
    if size > buckets[-1]:
        raise ValueError(f"{what} of {size} does not fit: DecodingConfig allows {buckets[-1]}")
    return buckets[bisect.bisect_left(buckets, size)]


def _pad(rows: Sequence[Sequence[int]], count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((count, length), np.int32)
    lengths = np.zeros(count, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        lengths[i] = len(row)
    return tokens, lengths


def _right_aligned(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
    """int32 [rows, longest], -1 on the left."""
    aligned = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for i, row in enumerate(rows):
        aligned[i, -len(row) :] = row
    return aligned


def _draw_key(seed: int, key: Sequence[int]) -> np.ndarray:
    """The key, uint32 [2], of the draws under one prefix: independent of batch, order and host."""
    digest = hashlib.sha256(repr((seed, tuple(int(part) for part in key))).encode()).digest()
    return np.frombuffer(digest[:8], np.uint32)


def _batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of `size`, neighbours in length together so that less is padded."""
    by_length = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [by_length[i : i + size] for i in range(0, len(by_length), size)]


@functools.cache
def _jitted(program: str):
    static = {"expand": (0, 1, 2), "score": (0,)}[program]
    return jax.jit(getattr(programs, program), static_argnums=static)


class PolicySampler:
    """The policy as search's `StepSampler`."""

    def __init__(
        self,
        model: DecoderConfig,
        parameters: Parameters,
        tokenizer: Tokenizer,
        mesh: Mesh,
        config: DecodingConfig,
        *,
        seed: int = 0,
    ):
        self.config = config
        self.tokens_sampled = 0
        self._model, self._parameters, self._tokenizer, self._mesh, self._seed = (
            model,
            parameters,
            tokenizer,
            mesh,
            seed,
        )

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`."""
        return self._tokenizer.encode(text)

    def expand(
        self, prefixes: Sequence[Prefix], n: int, *, stops: Sequence[str] = markers.STEP_STOPS
    ) -> list[list[Step]]:
        """`n` candidates under each prefix; whole code blocks get the larger room of `max_block_tokens`."""
        results: list[list[Step]] = [[] for _ in prefixes]
        for chosen in _batches([len(prefix.tokens) for prefix in prefixes], self.config.row_buckets[-1]):
            for i, steps in zip(chosen, self._expand([prefixes[i] for i in chosen], n, stops), strict=True):
                results[i] = steps
        return results

    def _expand(self, prefixes: Sequence[Prefix], n: int, stops: Sequence[str]) -> list[list[Step]]:
        config = self.config
        room = config.max_step_tokens if markers.END_OF_STEP in stops else config.max_block_tokens
        rows = _bucket(len(prefixes), config.row_buckets, "a batch of prefixes")
        length = _bucket(max(len(p.tokens) for p in prefixes), config.prefix_buckets, f"prefix {prefixes[0].key}")
        tokens, lengths = _pad([prefix.tokens for prefix in prefixes], rows, length)
        keys = np.zeros((rows, 2), np.uint32)
        for i, prefix in enumerate(prefixes):
            keys[i] = _draw_key(self._seed, prefix.key)
        endings = {self._tokenizer.ending(stop): stop for stop in stops}
        endings |= {(end,): "" for end in self._tokenizer.ends_of_text}
        with jax.set_mesh(self._mesh):
            where = partitioning.sharding(self._mesh, "batch")
            tokens, lengths, keys = jax.device_put((tokens, lengths, keys), where)
            samples = _jitted("expand")(
                self._model,
                n,
                room,
                self._parameters,
                tokens,
                lengths,
                keys,
                _right_aligned(sorted(endings)),
                np.float32(config.temperature),
                np.int32(len(self._tokenizer)),
            )
            samples = jax.device_get(samples)
        self.tokens_sampled += int(samples.length[: len(prefixes)].sum())
        return [[self._step(samples, i, j, endings) for j in range(n)] for i in range(len(prefixes))]

    def _step(self, samples: programs.Samples, i: int, j: int, endings: dict[tuple[int, ...], str]) -> Step:
        ids = tuple(int(t) for t in samples.tokens[i, j, : samples.length[i, j]])
        text, stop = self._tokenizer.decode(ids), "length"
        if samples.stopped[i, j]:
            ending, stop = next((own, name) for own, name in endings.items() if ids[-len(own) :] == own)
            if stop == "":
                ids = ids[: -len(ending)]
                text = self._tokenizer.decode(ids)
            elif not text.endswith(stop):  # a marker of several tokens ends before its bracket
                ids, text = ids + self._tokenizer.encode(">"), text + ">"
        return Step(text=text, tokens=ids, logprob=float(samples.logprob[i, j]), stop=stop)


class PreferenceScorer:
    """The PPM as search's `StepScorer`."""

    def __init__(self, model: DecoderConfig, parameters: Parameters, mesh: Mesh, config: DecodingConfig):
        self._model, self._parameters, self._mesh, self._config = model, parameters, mesh, config

    def score(self, prefixes: Sequence[Prefix], candidates: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """One value in [-1, 1] for each candidate of each prefix.

        Of a candidate that is longer than the longest bucket, the first tokens count as its prefix.
        """
        room = self._config.score_buckets[-1]
        results = self._score_all(prefixes, [[tokens[-room:] for tokens in own] for own in candidates])
        long = [(i, j) for i, own in enumerate(candidates) for j, tokens in enumerate(own) if len(tokens) > room]
        heads = [tuple(candidates[i][j][:-room]) for i, j in long]
        moved = [
            dataclasses.replace(prefixes[i], tokens=prefixes[i].tokens + head)
            for (i, _), head in zip(long, heads, strict=True)
        ]
        values = self._score_all(moved, [[candidates[i][j][-room:]] for i, j in long])
        for (i, j), (value,) in zip(long, values, strict=True):
            results[i][j] = value
        return results

    def _score_all(self, prefixes: Sequence[Prefix], candidates: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        results = [np.zeros(len(own), np.float32) for own in candidates]
        most = self._config.row_buckets[-1]
        for group in _batches([len(prefix.tokens) for prefix in prefixes], most):
            members = [(i, j) for i in group for j in range(len(candidates[i]))]
            for start in range(0, len(members), most * _CANDIDATES_PER_ROW):
                batch = members[start : start + most * _CANDIDATES_PER_ROW]
                for (i, j), value in zip(batch, self._score(prefixes, candidates, batch), strict=True):
                    results[i][j] = value
        return results

    def _score(self, prefixes: Sequence[Prefix], candidates, batch: Sequence[tuple[int, int]]) -> np.ndarray:
        """The values of one batch of (prefix, candidate) indices."""
        config = self._config
        owners = sorted({i for i, _ in batch})
        place = {i: row for row, i in enumerate(owners)}
        rows = _bucket(len(owners), config.row_buckets, "a batch of prefixes")
        length = _bucket(max(len(prefixes[i].tokens) for i in owners), config.prefix_buckets, "a prefix")
        tokens, lengths = _pad([prefixes[i].tokens for i in owners], rows, length)
        own = [candidates[i][j] for i, j in batch]
        per_row = -(-len(own) // _CANDIDATES_PER_ROW)
        own_rows = _CANDIDATES_PER_ROW * _bucket(per_row, config.row_buckets, "a batch of candidates")
        own_tokens, own_lengths = _pad(
            own, own_rows, _bucket(max(map(len, own)), config.score_buckets, "a candidate step")
        )
        owner = np.zeros(own_rows, np.int32)
        owner[: len(batch)] = [place[i] for i, _ in batch]
        with jax.set_mesh(self._mesh):
            where = partitioning.sharding(self._mesh, "batch")
            arrays = jax.device_put((tokens, lengths, owner, own_tokens, own_lengths), where)
            values = _jitted("score")(self._model, self._parameters, *arrays, np.float32(config.value_scale))
            return np.asarray(values)[: len(batch)]
