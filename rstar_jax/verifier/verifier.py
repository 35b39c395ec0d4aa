"""The host's side of running programs: a queue, a thread and a cell for each worker, a cache, retries.

    submit -> cache? -> queue -> worker thread <-> cell (a process, see `sandbox.cell`) -> futures

A worker has a cell of the bare library, and others, from the first program on that names one of their modules, in
which these are loaded and warm: a fork of the first is cheaper, and in the others an `import sympy` costs nothing,
however busy the host is.

A cell that dies or goes silent is our fault, not the program's: its candidates are run once more on a new cell, one by
one, and only what loses that cell too is given up as UNVERIFIED.
"""

import collections
import dataclasses
import hashlib
import importlib.util
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from rstar_jax.verifier.gathered import gather
from rstar_jax.verifier.process import ProcessLost, SandboxProcess
from rstar_jax.verifier.protocol import Limits, Outcome, Request, Verdict

_log = logging.getLogger(__name__)
_CANDIDATES_PER_JOB = 8  # of a request without prefix: enough to hide the hand-over, few enough to spread over workers
_SLACK_SECONDS = 20.0
_SCIPY = ("scipy.integrate", "scipy.linalg", "scipy.optimize", "scipy.special", "scipy.stats")  # 1.7 s of CPU to import


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    prefix: str
    candidates: list[str]
    futures: list[Future]
    cell: int


class _Closed(Exception):
    """The verifier was closed while a job was under way."""


class Verifier:
    """Runs untrusted candidates, each in a process and an interpreter state of its own.

    limits: what one candidate may use; `Limits()` if None.
    workers: cells, one core each; as many as there are cores if None.
    preload: groups of heavy modules; a worker has a cell for each, with the modules of the groups before it.
    cache_size: outcomes that are remembered, so that the same candidate after the same prefix runs once.

    Thread-safe. Raises RuntimeError if the sandbox cannot start here, ValueError if it is weaker than `limits` demand,
    or for a module that is not installed.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        workers: int | None = None,
        *,
        preload: Sequence[Sequence[str]] = (("numpy", "sympy"), _SCIPY),
        cache_size: int = 1 << 16,
    ):
        if workers is not None and workers < 1:
            raise ValueError(f"expected workers >= 1, got {workers}")
        self.limits = limits = limits or Limits()
        self.workers = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        for name in (name for group in preload for name in group):
            if importlib.util.find_spec(name) is None:
                raise ValueError(f"preload: {name} is not installed")
        self._preload = tuple(
            tuple(name for group in preload[:size] for name in group) for size in range(len(preload) + 1)
        )
        tops = ["|".join(sorted({re.escape(name.split(".")[0]) for name in group})) for group in preload]
        self._names = [re.compile(rf"\b({names})\b").search for names in tops]
        self._cache: collections.OrderedDict[bytes, Future] = collections.OrderedDict()
        self._cache_size = cache_size
        self._key = hashlib.sha256(repr(limits).encode())
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._cells: set[SandboxProcess] = set()
        try:
            first = self._start_cell(0)  # here and now, so that a host where nothing can run says so at once
        except ProcessLost as error:
            raise RuntimeError(f"the sandbox does not start on this host: {error}") from error
        self.layers: tuple[str, ...] = tuple(first.hello["layers"])
        _log.info("verifier: %d workers; isolation: %s", self.workers, ", ".join(self.layers))
        try:
            self._check_layers()
        except ValueError:
            self._drop_cell(first)
            raise
        self._threads = [
            threading.Thread(target=self._work, args=(first if i == 0 else None,), daemon=True, name=f"verifier-{i}")
            for i in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()

    def _check_layers(self) -> None:
        """Refuses a host that is weaker than the limits demand."""
        demanding = self.limits.require_seccomp or self.limits.require_landlock
        if demanding and os.getuid() == 0 and not {"namespaces", "nobody"}.intersection(self.layers):
            raise ValueError(
                f"the sandbox would run programs as root: this host refuses namespaces, and {sys.base_prefix} lies in "
                "a folder that only root can read; expected an ordinary user, or a Python that all users can read"
            )
        for layer, reach in (("seccomp", "processes and the network"), ("landlock", "files")):
            if layer in self.layers:
                continue
            if getattr(self.limits, f"require_{layer}"):
                raise ValueError(
                    f"Limits.require_{layer}: this host has no {layer}, so programs could reach {reach}; "
                    "expected False to run them all the same"
                )
            _log.warning("verifier: no %s here: programs are limited, but can reach %s", layer, reach)

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def submit(self, request: Request) -> "Future[list[Outcome]]":
        """Starts one request; the future gives one Outcome per candidate, in their order.

        Raises RuntimeError after `close`.
        """
        futures, fresh = [], []
        key = self._key.copy()
        key.update(_bytes(request.prefix))
        key.update(b"\0prefix\0")
        prefix_fits = len(_bytes(request.prefix)) <= self.limits.source_bytes
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier is closed")
            for candidate in request.candidates:
                if not prefix_fits or len(_bytes(candidate)) > self.limits.source_bytes:
                    futures.append(_rejected(f"source over {self.limits.source_bytes} bytes"))
                    continue
                future = self._remembered(key, candidate)
                if future is None:
                    future = self._remember(key, candidate)
                    fresh.append((candidate, future))
                futures.append(future)
            self._put(request.prefix, fresh)
        return gather(futures)

    def _put(self, prefix: str, fresh: list[tuple[str, Future]]) -> None:
        """Queues what is to run after a prefix, which runs once, or by eights if there is none."""
        least = self._cell_of(prefix)
        for cell in range(len(self._preload)):
            own = [row for row in fresh if max(least, self._cell_of(row[0])) == cell]
            size = len(own) if prefix else _CANDIDATES_PER_JOB
            for i in range(0, len(own), size or 1):
                candidates, owed = zip(*own[i : i + size], strict=True)
                self._jobs.put(_Job(prefix=prefix, candidates=list(candidates), futures=list(owed), cell=cell))

    def _cell_of(self, source: str) -> int:
        """The first cell in which every heavy module that `source` names is loaded."""
        return max((place for place, names in enumerate(self._names, start=1) if names(source)), default=0)

    def run(self, requests: Iterable[Request]) -> list[list[Outcome]]:
        """Runs all `requests` and returns their outcomes in the same order."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    def close(self) -> None:
        """Ends every process. Requests still under way fail with RuntimeError. May be called twice."""
        with self._lock:
            self._closed = True
            cells = list(self._cells)
        for _ in self._threads:
            self._jobs.put(None)
        for cell in cells:
            cell.kill()
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            if job := self._jobs.get():
                _abandon(job)

    def _remembered(self, key, candidate: str) -> Future | None:
        digest = _digest(key, candidate)
        future = self._cache.get(digest)
        if future is not None:
            self._cache.move_to_end(digest)
        return future

    def _remember(self, key, candidate: str) -> Future:
        digest = _digest(key, candidate)
        future = self._cache[digest] = Future()
        future.add_done_callback(lambda done: self._forget_if_not_final(digest, done))
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return future

    def _forget_if_not_final(self, digest: bytes, done: Future) -> None:
        """What a loaded or faulty host caused may come out otherwise the next time."""
        if done.exception() or done.result().verdict in (Verdict.UNVERIFIED, Verdict.TIMEOUT_WALL):
            with self._lock:
                if self._cache.get(digest) is done:
                    del self._cache[digest]

    def _start_cell(self, kind: int) -> SandboxProcess:
        settings = {"limits": dataclasses.asdict(self.limits), "preload": self._preload[kind]}
        cell = SandboxProcess("cell")
        with self._lock:
            self._cells.add(cell)
            closed = self._closed
        if closed:
            self._drop_cell(cell)
            raise _Closed
        try:
            cell.begin(settings)
        except ProcessLost:
            self._drop_cell(cell)
            raise
        return cell

    def _drop_cell(self, cell: SandboxProcess) -> None:
        cell.close()
        with self._lock:
            self._cells.discard(cell)

    def _work(self, first: SandboxProcess | None) -> None:
        """One worker thread's life, with `first` as its light cell if that has been started."""
        cells: dict[int, SandboxProcess] = {} if first is None else {0: first}
        while (job := self._jobs.get()) is not None:
            try:
                outcomes = self._attempt(cells, job, job.candidates)
                if outcomes is None:
                    outcomes = []
                    for candidate in job.candidates:
                        again = self._attempt(cells, job, [candidate])
                        outcomes += again or [Outcome(verdict=Verdict.UNVERIFIED, error="its cell was lost, twice")]
            except _Closed:
                _abandon(job)
                continue
            for future, outcome in zip(job.futures, outcomes, strict=True):
                future.set_result(outcome)
        for cell in cells.values():
            self._drop_cell(cell)

    def _attempt(self, cells: dict[int, SandboxProcess], job: _Job, candidates: list[str]) -> list[Outcome] | None:
        """The outcomes, or None if the cell was lost, which is then not among `cells` any more. Raises _Closed."""
        if self._closed:
            raise _Closed
        try:
            if job.cell not in cells:
                cells[job.cell] = self._start_cell(job.cell)
            return self._ask(cells[job.cell], job.prefix, candidates)
        except ProcessLost as error:
            if job.cell in cells:
                self._drop_cell(cells.pop(job.cell))
            if self._closed:
                raise _Closed from error
            _log.warning("verifier: lost a cell: %s", error)
            return None

    def _ask(self, cell: SandboxProcess, prefix: str, candidates: list[str]) -> list[Outcome]:
        limits = self.limits
        timeout = len(candidates) * limits.wall_seconds + limits.prefix_wall_seconds + _SLACK_SECONDS
        answer = cell.ask({"prefix": prefix, "candidates": candidates}, timeout)
        try:
            outcomes = [Outcome(**{**fields, "verdict": Verdict(fields["verdict"])}) for fields in answer["outcomes"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ProcessLost(f"expected outcomes, got {answer!r:.200}") from error
        if len(outcomes) != len(candidates):
            raise ProcessLost(f"expected {len(candidates)} outcomes, got {len(outcomes)}")
        return outcomes


def _bytes(source: str) -> bytes:
    return source.encode("utf-8", "surrogatepass")


def _digest(key, candidate: str) -> bytes:
    key = key.copy()
    key.update(_bytes(candidate))
    return key.digest()


def _rejected(error: str) -> Future:
    future: Future = Future()
    future.set_result(Outcome(verdict=Verdict.REJECTED, error=error))
    return future


def _abandon(job: _Job) -> None:
    for future in job.futures:
        future.set_exception(RuntimeError("the verifier was closed before this request had run"))
