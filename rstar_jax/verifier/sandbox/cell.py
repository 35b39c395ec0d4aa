"""A cell: a warm, walled process that forks one child for each program it is asked to run.

    host --request--> cell --fork--> candidate                          (no prefix)
                       |
                       '--fork--> prefix, which runs once and forks --> candidate, candidate, ...

A candidate that follows a prefix is forked by the process that ran the prefix, but as its *sibling* (CLONE_PARENT), so
that the cell is every candidate's parent: it alone waits for them, reads their CPU clocks and kills them.

What a program prints goes to one memory file, bounded by the limit on file sizes: nothing to drain, no deadlock, and
it survives a kill. How a program ended is written by the child into a page shared with the cell, after a secret that
was drawn for this one execution; no secret, no success, so `os._exit(0)` is an early exit.
"""

import gc
import importlib
import io
import math
import mmap
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
import types

from . import clocks, forks, frames, huge_pages, isolation, programs, syscalls, warm_up

# The library modules that programs import most, loaded once here and shared by every fork.
_PRELOADED = (
    "bisect", "cmath", "collections", "copy", "decimal", "fractions", "functools", "heapq", "itertools", "math",
    "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
_PAGE_BYTES = 4096
_RESERVE_BYTES = 4 << 20
_GO, _UP, _OUTPUT, _PREFIX_FDS_END = 20, 21, 22, 23  # the descriptors of a prefix process; below the limit on them
_PREFIX_ANSWERS_SECONDS = 10.0
_PREFIX_ENDS_SECONDS = 1.0
_LAST_DESCRIPTOR = 1 << 10  # none is higher: see the limit on open files
_POLL_SECONDS = 0.01  # how often to look at a process where the kernel does not tell that it has ended
_SIGNALS = {number.value: number.name for number in signal.Signals}
_VERDICTS = {
    programs.DONE: "ok",
    programs.ERROR: "error",
    programs.EXIT: "exit",
    programs.MEMORY: "memory",
    programs.PREFIX: "rejected",
}


def main(fd: int) -> None:
    """Serves one host over the socket `fd`: a settings message first, then requests until the host is gone."""
    host = socket.socket(fileno=os.dup(fd))
    os.close(fd)
    try:
        cell = Cell(host, frames.receive(host))
        frames.send(host, {"layers": cell.layers})
        while (request := frames.receive(host)) is not None:
            frames.send(host, {"outcomes": cell.answer(request["prefix"], request["candidates"])})
    except (BrokenPipeError, ConnectionResetError):
        pass
    except BaseException:
        try:
            frames.send(host, {"fault": traceback.format_exc()})
        except OSError:
            pass
        os._exit(1)
    os._exit(0)


class Cell:
    """The state of one cell: its limits, the memory file, the shared page and the filters for its children."""

    def __init__(self, host: socket.socket, settings: dict):
        self._host = host
        self._limits = settings["limits"]
        register, os.register_at_fork = os.register_at_fork, lambda **_: None  # forks run no hooks, so take none
        for name in (*_PRELOADED, *settings["preload"]):
            importlib.import_module(name)
        for name in settings["preload"]:
            warm_up.run(name)
        os.register_at_fork = register
        sys.dont_write_bytecode = True  # up to here the libraries are ours, and compiling them every time is slow
        self._null = os.open(os.devnull, os.O_RDWR)
        self._children, maps = _open_children(), huge_pages.open_maps()
        self._output = _memory_file()
        self._page = mmap.mmap(-1, _PAGE_BYTES)  # shared with every fork
        self._reserve = [bytearray(_RESERVE_BYTES)]
        self.layers = isolation.confine(
            memory_bytes=self._limits["memory_bytes"], file_bytes=self._limits["output_bytes"] + 1, own_pids=True
        )
        self._owns_pids = os.getpid() == 1
        filtered = "seccomp" in self.layers
        self._filter = syscalls.Filter(syscalls.program_filter(may_fork_siblings=False)) if filtered else None
        self._prefix_filter = syscalls.Filter(syscalls.program_filter(may_fork_siblings=True)) if filtered else None
        self._namespace = self._make_main()
        if settings["preload"]:  # the heap of the bare library is too small to gain by it
            huge_pages.collapse(maps)

    def _make_main(self) -> dict:
        """Points the standard streams at what programs are to see and makes the heap ready to be forked."""
        for fd, source in ((0, self._null), (1, self._output), (2, self._null)):
            os.dup2(source, fd)
        sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), encoding="utf-8")
        sys.stdout = sys.__stdout__ = _writer(1)
        sys.stderr = sys.__stderr__ = _writer(2)
        main = types.ModuleType("__main__")
        namespace = main.__dict__
        for _ in range(warm_up.LIBRARY_RUNS):
            ended = programs.execute(warm_up.LIBRARY, namespace, [])
            programs.report(self._page, bytes(programs.SECRET_BYTES), *ended)
        namespace.clear()
        namespace["__name__"] = "__main__"
        sys.modules["__main__"] = main
        os.environ.clear()
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            os.putenv(name, "1")  # unseen by programs; a numpy that may start no thread ends the process otherwise
        sys.argv[:] = [""]
        # One seed for all: two forks of this process draw the same numbers, so equal programs give equal bytes.
        sys.modules["random"].seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        gc.collect()
        gc.disable()  # in the cell only; a collection would copy pages that are shared with the children
        gc.freeze()
        return namespace

    def answer(self, prefix: str, candidates: list[str]) -> list[dict]:
        """Runs every candidate after `prefix`, one after the other."""
        try:
            if prefix and forks.CLONE:
                return self._after_prefix(prefix, candidates)
            return [self._alone(candidate, prefix) for candidate in candidates]
        finally:
            self._kill_strays()

    def _alone(self, source: str, prefix: str = "") -> dict:
        """Runs a candidate in a fork of this process; behind a prefix only where there are no siblings to fork."""
        secret = self._arm()
        pid = forks.fork()
        if pid == 0:
            try:
                os.closerange(3, _LAST_DESCRIPTOR)
                cpu_seconds = self._limits["cpu_seconds"] + bool(prefix) * self._limits["prefix_cpu_seconds"]
                self._enter_child(cpu_seconds, self._filter)
                if prefix:
                    programs.run_prefix(prefix, self._namespace, self._reserve, self._page, secret)
                programs.run_to_the_end(source, self._namespace, self._reserve, self._page, secret)
            finally:
                os._exit(0)
        outcome = self._outcome(*self._wait(pid, "prefix_" if prefix else ""), secret)
        if not forks.LINUX:
            _kill_group(pid)
        return outcome

    def _after_prefix(self, prefix: str, candidates: list[str]) -> list[dict]:
        go_read, go = os.pipe()
        up, up_write = os.pipe()
        secret = self._arm()
        pid = forks.fork()
        if pid == 0:
            try:
                self._be_prefix(prefix, candidates, secret, go_read, up_write)
            finally:
                os._exit(0)
        os.close(go_read)
        os.close(up_write)
        outcomes, failure = [], None
        try:
            ended = self._wait(pid, "prefix_", until=up)
            if ended or not os.read(up, 4):
                outcome = self._outcome(*(ended or self._wait(pid, "prefix_")), secret)
                failure = outcome["error"] or outcome["verdict"]
            while failure is None and len(outcomes) < len(candidates):
                secret = self._arm()
                child = self._ask_prefix(len(outcomes), secret, go, up)
                if child is None:
                    self._check_not_killed(_status_within(pid, _PREFIX_ENDS_SECONDS))  # its pipes close before it ends
                    failure = "it ended before all of its candidates had run"
                elif not _is_own_child(child):  # a prefix process may lie about what it forked
                    outcomes.append(
                        {"verdict": "early_exit", "output": "", "error": "never started", "cpu_seconds": 0.0}
                    )
                else:
                    outcomes.append(self._outcome(*self._wait(child, ""), secret))
        finally:
            os.close(go)
            os.close(up)
            self._kill_strays()
        rejected = {"verdict": "rejected", "output": "", "error": f"prefix: {failure}", "cpu_seconds": 0.0}
        return outcomes + [rejected] * (len(candidates) - len(outcomes))

    def _be_prefix(self, prefix: str, candidates: list[str], secret: bytes, go: int, up: int) -> None:
        """The life of a prefix process; its candidates leave through `run_to_the_end`."""
        for fd, source in ((_GO, go), (_UP, up), (_OUTPUT, self._output), (1, self._null)):
            os.dup2(source, fd)
        os.closerange(3, _GO)
        os.closerange(_PREFIX_FDS_END, _LAST_DESCRIPTOR)
        page, namespace, reserve, own_filter = self._page, self._namespace, self._reserve, self._filter
        closerange, dup2, read, write = os.closerange, os.dup2, os.read, os.write
        fork, enable = forks.fork_sibling, isolation.die_with_parent
        self._enter_child(self._limits["prefix_cpu_seconds"], self._prefix_filter)
        kind, text = programs.execute(prefix, namespace, reserve)
        if kind != programs.DONE:
            programs.report(page, secret, kind, text)
            return
        write(_UP, b"done")
        while order := read(_GO, 4 + programs.SECRET_BYTES):
            pid = fork()
            if pid == 0:
                dup2(_OUTPUT, 1)
                closerange(3, _LAST_DESCRIPTOR)
                enable()
                if own_filter is not None:
                    own_filter.install()
                source = candidates[int.from_bytes(order[:4], "big")]
                programs.run_to_the_end(source, namespace, reserve, page, order[4:])
            write(_UP, pid.to_bytes(4, "big"))

    def _ask_prefix(self, index: int, secret: bytes, go: int, up: int) -> int | None:
        """The process id of the candidate that the prefix process forked, or None if it did not."""
        try:
            os.write(go, index.to_bytes(4, "big") + secret)
        except BrokenPipeError:
            return None
        poll = select.poll()
        poll.register(up, select.POLLIN)
        data = os.read(up, 4) if poll.poll(_PREFIX_ANSWERS_SECONDS * 1000) else b""
        return int.from_bytes(data, "big") if len(data) == 4 else None

    def _enter_child(self, cpu_seconds: float, own_filter: syscalls.Filter | None) -> None:
        isolation.die_with_parent()
        if not forks.LINUX:
            os.setsid()  # so that what it leaves behind can be found
        # In whole seconds. On Linux only a second line of defence: there the cell watches the clock itself.
        seconds = math.ceil(cpu_seconds) + forks.LINUX
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        gc.enable()
        if own_filter is not None:
            own_filter.install()

    def _arm(self) -> bytes:
        """Makes output and page ready for one execution and draws its secret."""
        secret = os.urandom(programs.SECRET_BYTES)
        self._page[: programs.SECRET_BYTES] = bytes(programs.SECRET_BYTES)
        os.ftruncate(self._output, 0)
        os.lseek(self._output, 0, os.SEEK_SET)
        return secret

    def _wait(self, pid: int, limit: str, until: int | None = None) -> tuple[str, int, resource.struct_rusage] | None:
        """Waits for a process to end, kills it at its deadline. Returns (deadline missed or "", status, usage).

        until: a descriptor; None is returned if there is something to read on it before the process ends.
        CPU time decides; a process cannot use CPU faster than the wall clock runs, so it need not be asked earlier.
        """
        cpu_limit, wall_limit = self._limits[f"{limit}cpu_seconds"], self._limits[f"{limit}wall_seconds"]
        watched = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
        poll = select.poll()
        poll.register(self._host, 0)  # a hang-up is always reported
        for fd in (watched, until):
            if fd not in (-1, None):
                poll.register(fd, select.POLLIN)
        start, cpu = time.monotonic(), 0.0
        try:
            while True:
                wall = time.monotonic() - start
                if cpu >= cpu_limit or wall >= wall_limit:
                    os.kill(pid, signal.SIGKILL)
                    return "timeout_cpu" if cpu >= cpu_limit else "timeout_wall", *os.wait4(pid, 0)[1:]
                patience = min(cpu_limit - cpu, wall_limit - wall, math.inf if watched >= 0 else _POLL_SECONDS)
                ready = [fd for fd, _ in poll.poll(max(1.0, patience * 1000))]
                if self._host.fileno() in ready:
                    raise ConnectionResetError("the host is gone")  # the children die with this process
                if watched < 0 or watched in ready:
                    ended, *how = os.wait4(pid, os.WNOHANG)
                    if ended:
                        return "", *how
                if until in ready:
                    return None
                cpu = clocks.cpu_seconds(pid)
        finally:
            if watched >= 0:
                os.close(watched)

    def _outcome(self, killed: str, status: int, usage: resource.struct_rusage, secret: bytes) -> dict:
        """What a process that has ended leaves to be said."""
        limit = self._limits["output_bytes"]
        data = os.pread(self._output, limit + 1, 0)
        ended = programs.read_report(self._page, secret)
        error = ""
        if killed:
            verdict = killed
        elif len(data) > limit:
            verdict = "output_limit"
        elif ended is not None:
            verdict, error = _VERDICTS.get(ended[0], "early_exit"), ended[1]
        elif os.WIFSIGNALED(status):
            self._check_not_killed(status)
            number = os.WTERMSIG(status)
            verdict = "timeout_cpu" if number == signal.SIGXCPU else "crash"
            error = f"killed by {_SIGNALS.get(number, number)}"
        else:
            verdict, error = "early_exit", f"the process ended with status {os.WEXITSTATUS(status)}"
        return {
            "verdict": verdict,
            "output": data[:limit].decode("utf-8", "replace"),
            "error": error,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 6),
        }

    def _check_not_killed(self, status: int) -> None:
        """Raises for a process that was killed from outside: under the filter no program can do that to itself."""
        if self._filter is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            raise RuntimeError("a program was killed from outside, perhaps because memory ran out")

    def _kill_strays(self) -> None:
        """Kills and reaps every process that a request left behind: as the subreaper, this one is their parent."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid:
                continue
            if self._owns_pids:
                os.kill(-1, signal.SIGKILL)
            else:
                for child in os.pread(self._children, 1 << 16, 0).split():
                    os.kill(int(child), signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def _is_own_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _status_within(pid: int, seconds: float) -> int:
    """The exit status of a child that is about to end; 0 if it goes on for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # collected already, because it named itself as what it forked
            return 0
        if ended:
            return status
        time.sleep(_POLL_SECONDS)
    return 0


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _memory_file() -> int:
    """A file that is nowhere on disk, or, where the system has no such files, one that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("output")
    import tempfile  # not for all: it would be in the memory of every fork

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _writer(fd: int) -> io.TextIOWrapper:
    # Unbuffered, so that what was printed before a kill is there.
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)


def _open_children() -> int:
    """The kernel's list of this process' children, opened while files outside the libraries can still be opened."""
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
    except OSError:
        return os.open(os.devnull, os.O_RDONLY)
