"""Decides whether an answer is right: plain numbers here, all else by reading both texts whole, in a sandbox.

No answer is ever evaluated here. Rules in their order: an answer over 1,000 characters is wrong; equal text is right;
two plain numbers are compared as exact fractions, where a decimal of four digits may stand for the fraction that rounds
to it, and nothing else has a tolerance; the rest goes to a process (see `sandbox.answers`) with a hard deadline. What
is not read to its end, or not decided in time, is None, "undecided".
"""

import collections
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rstar_jax.verifier import exact
from rstar_jax.verifier.gathered import gather
from rstar_jax.verifier.process import ProcessLost, SandboxProcess
from rstar_jax.verifier.sandbox import clocks

_log = logging.getLogger(__name__)
_ANSWER_CHARACTERS = 1000
_CPU_SECONDS = 2.0
_WALL_SECONDS = 5.0
_POLL_SECONDS = 0.1
_START_SECONDS = 30.0
_CACHE_SIZE = 1 << 16

Pair = tuple[str | tuple[str, ...], str]  # a gold answer, or several; an answer


class Grader:
    """Grades pairs of (gold, answer). workers: processes that read and compare, started when the first pair needs one.

    Thread-safe. Answers are remembered.
    """

    def __init__(self, workers: int = 1):
        if workers < 1:
            raise ValueError(f"expected workers >= 1, got {workers}")
        self.workers = workers
        self._cache: collections.OrderedDict[tuple[str, str], bool] = collections.OrderedDict()
        self._under_way: dict[tuple[str, str], Future[bool | None]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._idle: queue.SimpleQueue[_GraderProcess] = queue.SimpleQueue()
        self._processes = [_GraderProcess() for _ in range(workers)]
        for process in self._processes:
            self._idle.put(process)
        self._closed = False

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def grade(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """`submit` for each of several pairs, waited for."""
        return [future.result() for future in [self.submit(pair) for pair in pairs]]

    def submit(self, pair: Pair) -> "Future[bool | None]":
        """Whether an answer equals its gold answer, or one of several; None if undecided, as without any gold.

        What takes no process is done at once; equal pairs that are under way are asked once.
        Raises RuntimeError after `close`, which lets all that is under way fail with it, too.
        """
        if self._closed:
            raise RuntimeError("the grader is closed")
        golds, answer = pair
        return gather([self._verdict(gold, answer) for gold in _several(golds)], _any)

    def _verdict(self, gold: str, answer: str) -> "Future[bool | None]":
        verdict = False if len(answer) > _ANSWER_CHARACTERS else exact.compare(gold, answer)
        if verdict is not None:
            return _known(verdict)
        with self._lock:
            if (gold, answer) in self._cache:
                return _known(self._cache[gold, answer])
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="grader")
            if (gold, answer) not in self._under_way:
                self._under_way[gold, answer] = self._threads.submit(self._ask, (gold, answer))
            return self._under_way[gold, answer]

    def close(self) -> None:
        """Ends every process. May be called twice."""
        self._closed = True
        for process in self._processes:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown()
        for process in self._processes:
            process.drop()

    def _ask(self, pair: tuple[str, str]) -> bool | None:
        process, verdict = self._idle.get(), None
        try:
            if not self._closed:
                verdict = process.ask(*pair)
            if verdict is None and self._closed:
                raise RuntimeError("the grader was closed before this pair was graded")
            return verdict
        finally:
            self._idle.put(process)
            with self._lock:
                del self._under_way[pair]
                if verdict is not None:  # what was undecided on a busy host may be decided the next time
                    self._cache[pair] = verdict
                    if len(self._cache) > _CACHE_SIZE:
                        self._cache.popitem(last=False)


class _GraderProcess:
    """One template and the grader it forked, started on the first question; used by one thread at a time."""

    def __init__(self):
        self._process: SandboxProcess | None = None
        self._grader = 0
        self._closed = False

    def ask(self, gold: str, answer: str) -> bool | None:
        """Whether both mean the same; None if that is not known.

        A pair over which a grader ran out of time or memory, or was lost, is asked once more, of a new one.
        """
        for _ in range(2):
            try:
                if self._process is None:
                    self._start()
                verdict, lost = self._within_deadline(gold, answer)
            except ProcessLost as error:
                self.drop()
                if self._closed:
                    return None
                _log.warning("grader: lost a process: %s", error)
            else:
                if not lost:
                    return verdict
        return None

    def kill(self) -> None:
        """Ends the process for good, from any thread."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> None:
        process = self._process = SandboxProcess("math_grader")
        if self._closed:  # `kill` may have come before there was what it kills
            raise ProcessLost("the grader is closed")
        process.begin({})
        self._grader = process.hello["pid"]
        if "seccomp" not in process.hello["layers"]:
            _log.warning("grader: no seccomp on this host")

    def drop(self) -> None:
        """Ends the process; the next question starts another. Only from the thread that asks."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _within_deadline(self, gold: str, answer: str) -> tuple[bool | None, bool]:
        """The verdict, and whether the grader ran out of time or memory; then another one is up already."""
        process = self._process
        start, cpu_start = time.monotonic(), clocks.cpu_seconds(self._grader)
        process.send({"gold": gold, "answer": answer}, _WALL_SECONDS)
        killed = False
        while not killed and not process.has_message(_POLL_SECONDS):
            late = time.monotonic() - start >= _WALL_SECONDS
            if late or clocks.cpu_seconds(self._grader) - cpu_start >= _CPU_SECONDS:
                killed = True
                _kill(self._grader)
        reply = process.receive(_START_SECONDS)
        verdict, lost, leaves = None, True, "pid" not in reply and (killed or reply["leaves"])
        if "pid" not in reply:
            verdict, lost = reply["equal"], reply["lost"]
        if leaves:
            reply = process.receive(_START_SECONDS)
        if "pid" in reply:  # a new grader greets: the old one was killed, has left, or fell over this pair
            self._grader = reply["pid"]
        return verdict, lost


def _known(verdict: bool) -> "Future[bool | None]":
    future: Future[bool | None] = Future()
    future.set_result(verdict)
    return future


def _several(golds: str | tuple[str, ...]) -> tuple[str, ...]:
    return (golds,) if isinstance(golds, str) else golds


def _any(verdicts: Sequence[bool | None]) -> bool | None:
    """True if one is; False if all are; else None."""
    return True if True in verdicts else (None if None in verdicts or not verdicts else False)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
