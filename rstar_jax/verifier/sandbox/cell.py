"""A cell: a warm, walled process that forks one child for each program it is asked to run.

    host --request--> cell --fork--> candidate                          (no prefix)
                       |
                       '--fork--> prefix, which runs once and forks --> candidate, candidate, ...

A candidate that follows a prefix is forked by the process that ran the prefix, but as its *sibling* (CLONE_PARENT), so
that the cell is every candidate's parent: it alone waits for them, reads their CPU clocks and kills them.

What a program prints goes to one memory file, bounded by the limit on file sizes: nothing to drain, no deadlock, and
it survives a kill. How a program ended is written by the child into a page shared with the cell, after a secret that
was drawn for this one execution; no secret, no success, so `os._exit(0)` is an early exit.

Nothing is left for the next program: page, output and its flags and locks are made new before each, what others are
to run is forgotten in the child before it runs, and what a lying prefix has left running is killed.
"""

import fcntl
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
import struct
import sys
import traceback
import types
from os import getpid, urandom
from time import monotonic, sleep

from . import clocks, forks, frames, huge_pages, isolation, programs, sameness, syscalls, warm_up

# The library modules that programs import most, loaded once here and shared by every fork.
_PRELOADED = (
    "bisect", "cmath", "collections", "copy", "decimal", "fractions", "functools", "heapq", "itertools", "math",
    "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
_PAGE_BYTES = 4096
_RESERVE_BYTES = 4 << 20
_GO, _UP, _OUTPUT, _PREFIX_FDS_END = 20, 21, 22, 23  # the descriptors of a prefix process; below the limit on them
_LENGTH_BYTES = 4
_F_OFD_SETLK = 37  # locks that stay with what is open, not with who opened it
_UNLOCK = struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0)  # struct flock: all of the file
_PREFIX_ANSWERS_SECONDS = 10.0
_PREFIX_ENDS_SECONDS = 1.0
_LAST_DESCRIPTOR = 1 << 10  # none is higher: see the limit on open files
_STRAY_SECONDS = 0.01  # how often to look what a prefix process has forked for itself
_MOST_CHILDREN = 4  # a prefix, a candidate; more is killed at sight
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
        while cell.take(frames.receive(host)):
            frames.send(host, {"outcomes": cell.answer()})
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
        maps = huge_pages.open_maps()
        self._output = _memory_file()
        self._page = mmap.mmap(-1, _PAGE_BYTES)  # shared with every fork
        self._source = mmap.mmap(-1, _LENGTH_BYTES + self._limits["source_bytes"])  # from here to a prefix process
        self._prefix, self._sources, self._prefix_pid = "", [], 0
        self._reserve = [bytearray(_RESERVE_BYTES)]
        self.layers, self._children = isolation.confine(
            memory_bytes=self._limits["memory_bytes"], file_bytes=self._limits["output_bytes"] + 1, own_pids=True
        )
        self._owns_pids = getpid() == 1
        filtered = "seccomp" in self.layers
        self._filter = syscalls.Filter(syscalls.program_filter()) if filtered else None
        self._prefix_filter = syscalls.Filter(syscalls.program_filter(may_fork_siblings=True)) if filtered else None
        self._namespace = self._make_main()
        if settings["preload"]:  # the heap of the bare library is too small to gain by it
            huge_pages.collapse(maps)

    def _make_main(self) -> dict:
        """Points the standard streams at what programs are to see and makes the heap ready to be forked."""
        self._output_flags = fcntl.fcntl(self._output, fcntl.F_GETFL)
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
        sameness.fix(seed=0)  # two forks of this process draw the same numbers, so equal programs give equal bytes
        gc.collect()
        gc.disable()  # in the cell only; a collection would copy pages that are shared with the children
        gc.freeze()
        return namespace

    def take(self, request: dict | None) -> bool:
        """Keeps what is to run next, in the one place from where a child can make it forgotten; False for None."""
        if request is None:
            return False
        self._prefix, self._sources = request["prefix"], request["candidates"]
        return True

    def answer(self) -> list[dict]:
        """Runs every candidate after the prefix, one after the other."""
        try:
            if self._prefix and forks.CLONE:
                return self._after_prefix()
            return [self._alone(index) for index in range(len(self._sources))]
        finally:
            self._kill_strays()

    def _alone(self, index: int) -> dict:
        """Runs a candidate in a fork of this process; behind the prefix only where there are no siblings to fork."""
        secret, follows = self._arm(), bool(self._prefix)
        pid = forks.fork()
        if pid == 0:
            try:
                os.closerange(3, _LAST_DESCRIPTOR)
                source, before = self._sources[index], self._prefix
                self._forget()
                self._enter_child(
                    self._limits["cpu_seconds"] + follows * self._limits["prefix_cpu_seconds"], self._filter
                )
                if follows:
                    programs.run_prefix(before, self._namespace, self._reserve, self._page, secret)
                programs.run_to_the_end(source, self._namespace, self._reserve, self._page, secret)
            finally:
                os._exit(0)
        outcome = self._outcome(*self._wait(pid, "prefix_" if follows else ""), secret)
        if not forks.LINUX:
            _kill_group(pid)
        return outcome

    def _forget(self) -> None:
        """In a child: nothing that others run is left in this process' frames."""
        self._prefix, self._sources = "", []

    def _after_prefix(self) -> list[dict]:
        go_read, go = os.pipe()
        up, up_write = os.pipe()
        secret, count = self._arm(), len(self._sources)
        pid = forks.fork()
        if pid == 0:
            try:
                self._be_prefix(secret, go_read, up_write)
            finally:
                os._exit(0)
        self._prefix_pid = pid
        os.close(go_read)
        os.close(up_write)
        outcomes, failure = [], None
        try:
            ended = self._wait(pid, "prefix_", until=up)
            if ended or not os.read(up, 4):
                outcome = self._outcome(*(ended or self._wait(pid, "prefix_")), secret)
                failure = outcome["error"] or outcome["verdict"]
            while failure is None and len(outcomes) < count:
                self._kill_all_but(pid)
                secret = self._arm()
                child = self._ask_prefix(self._sources[len(outcomes)], secret, go, up)
                if child is None:
                    self._check_not_killed(_status_within(pid, _PREFIX_ENDS_SECONDS))  # its pipes close before it ends
                    failure = "it ended before all of its candidates had run"
                elif child == pid or not _is_own_child(child):  # a prefix process may lie about what it forked
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
        return outcomes + [rejected] * (count - len(outcomes))

    def _be_prefix(self, secret: bytes, go: int, up: int) -> None:
        """The life of a prefix process; its candidates leave through `run_to_the_end`."""
        for fd, source in ((_GO, go), (_UP, up), (_OUTPUT, self._output), (1, self._null)):
            os.dup2(source, fd)
        os.closerange(3, _GO)
        os.closerange(_PREFIX_FDS_END, _LAST_DESCRIPTOR)
        page, namespace, reserve, own_filter = self._page, self._namespace, self._reserve, self._filter
        closerange, dup2, read, write = os.closerange, os.dup2, os.read, os.write
        fork, enable, own_source, decode = forks.fork_sibling, isolation.die_with_parent, self._source, bytes.decode
        before = self._prefix
        self._forget()
        self._enter_child(self._limits["prefix_cpu_seconds"], self._prefix_filter)
        kind, text = programs.execute(before, namespace, reserve)
        before = None
        if kind != programs.DONE:
            programs.report(page, secret, kind, text)
            return
        write(_UP, b"done")
        while order := read(_GO, programs.SECRET_BYTES):
            pid = fork()
            if pid == 0:
                dup2(_OUTPUT, 1)
                closerange(3, _LAST_DESCRIPTOR)
                enable()
                if own_filter is not None:
                    own_filter.install()
                end = _LENGTH_BYTES + int.from_bytes(own_source[:_LENGTH_BYTES], "big")
                source = decode(own_source[_LENGTH_BYTES:end], "utf-8", "surrogatepass")
                own_source.close()
                programs.run_to_the_end(source, namespace, reserve, page, order)
            write(_UP, pid.to_bytes(4, "big"))

    def _ask_prefix(self, source: str, secret: bytes, go: int, up: int) -> int | None:
        """The process id of the candidate that the prefix process forked, or None if it did not."""
        data = source.encode("utf-8", "surrogatepass")
        self._source[: _LENGTH_BYTES + len(data)] = len(data).to_bytes(_LENGTH_BYTES, "big") + data
        try:
            os.write(go, secret)
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
        secret = urandom(programs.SECRET_BYTES)
        self._page[:] = bytes(_PAGE_BYTES)
        fcntl.fcntl(self._output, fcntl.F_SETFL, self._output_flags)
        if forks.LINUX:
            fcntl.fcntl(self._output, _F_OFD_SETLK, _UNLOCK)
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
        start, cpu = monotonic(), 0.0
        try:
            while True:
                wall = monotonic() - start
                if cpu >= cpu_limit or wall >= wall_limit:
                    os.kill(pid, signal.SIGKILL)
                    return "timeout_cpu" if cpu >= cpu_limit else "timeout_wall", *os.wait4(pid, 0)[1:]
                patience = min(cpu_limit - cpu, wall_limit - wall, math.inf if watched >= 0 else _POLL_SECONDS)
                if self._prefix:
                    patience = min(patience, _STRAY_SECONDS)
                    if len(self._living_children()) > _MOST_CHILDREN:
                        self._kill_all_but(self._prefix_pid, pid)
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
                for child in self._living_children():
                    os.kill(child, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _kill_all_but(self, *pids: int) -> None:
        """Kills what a prefix process has forked for itself."""
        strays = [child for child in self._living_children() if child not in pids]
        for stray in strays:  # all of them, before one is waited for: they may keep every core busy
            os.kill(stray, signal.SIGKILL)
        for stray in strays:
            os.waitpid(stray, 0)

    def _living_children(self) -> list[int]:
        return [int(child) for child in os.pread(self._children, 1 << 16, 0).split()]


def _is_own_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):  # another's, none at all, or no process id
        return False
    return True


def _status_within(pid: int, seconds: float) -> int:
    """The exit status of a child that is about to end; 0 if it goes on for so long."""
    end = monotonic() + seconds
    while monotonic() < end:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # collected already, because it named itself as what it forked
            return 0
        if ended:
            return status
        sleep(_POLL_SECONDS)
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
