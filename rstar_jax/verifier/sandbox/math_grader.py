"""Compares two answers in a process that can be killed in the middle of a thought.

    host --pair--> grader, forked from --> template (sympy loaded, walls up), which forks a new one when it ends

No alarm can stop a computation inside C, so the host kills the grader at its deadline. The template makes that cheap: a
new grader costs a fork, not an import. A grader that has grown leaves by itself, so that no pair is judged by what
others have left behind; and both end with the host, whatever ends it: the template watches its socket.
"""

import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time

from . import forks, frames, isolation, syscalls
from .answers import equality

_MEMORY_BYTES = 2 << 30
_GROWTH_BYTES = 500 << 20  # of a grader, after which another one takes its place
_STILLBORN_SECONDS = 0.5
_MOST_STILLBORN = 5
_POLL_SECONDS = 0.05  # where the kernel does not tell that a process has ended
# What loads the parts of sympy and mpmath that most pairs need.
_PAIRS = (
    (r"\frac{1}{2}", "0.5"), ("x^2+1", "1+x^2"), ("(1,2]", "(1,2]"), (r"\sqrt{2}", "2**(1/2)"), ("(x+1)^2", "x^2+2x+1"),
    (r"\sin^2 x", r"\frac{1-\cos 2x}{2}"), (r"\frac{1}{\sqrt{5}-2}", r"\sqrt{5}+2"), (r"\binom{n}{2}", "n(n-1)/2"),
    (r"x > 1", r"(1,\infty)"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "Matrix([[1], [2]])"), (r"5\text{ cm}", "0.05 m"),
    (r"\log_2 3", r"\ln 3/\ln 2"), (r"1\pm\sqrt{5}", r"1+\sqrt5, 1-\sqrt5"), ("y=2x+3", "2x-y+3=0"),
)  # fmt: skip


def main(fd: int) -> None:
    """Serves one host over the socket `fd`; says the process id of each new grader first."""
    host = socket.socket(fileno=os.dup(fd))
    os.close(fd)
    frames.receive(host)
    _warm_up()
    sys.dont_write_bytecode = True
    layers, _ = isolation.confine(memory_bytes=_MEMORY_BYTES, file_bytes=1 << 16, own_pids=False)
    own_filter = None
    if "seccomp" in layers:
        own_filter = syscalls.Filter(syscalls.program_filter(answers=True))
    gc.collect()
    gc.freeze()
    stillborn = 0
    while stillborn < _MOST_STILLBORN:
        start = time.monotonic()
        pid = forks.fork()
        if pid == 0:
            try:
                isolation.die_with_parent()
                if own_filter is not None:
                    own_filter.install()
                _serve(host, layers)
            finally:
                os._exit(1)
        if _outlives(pid, host):
            break
        stillborn = stillborn + 1 if time.monotonic() - start < _STILLBORN_SECONDS else 0
    os._exit(0)  # the host is gone, or no grader lives here


def _outlives(pid: int, host: socket.socket) -> bool:
    """Waits for a grader to end. Whether the host has gone before; then the grader is killed."""
    watched = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    poll = select.poll()
    poll.register(host, 0)  # a hang-up is always reported
    if watched >= 0:
        poll.register(watched, select.POLLIN)
    try:
        while True:
            ready = [fd for fd, _ in poll.poll(None if watched >= 0 else _POLL_SECONDS * 1000)]
            if host.fileno() in ready:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return True
            if os.waitpid(pid, os.WNOHANG)[0]:
                return False
    finally:
        if watched >= 0:
            os.close(watched)


def _serve(host: socket.socket, layers: list[str]) -> None:
    """Answers pairs until the host is gone, or this process has grown.

    leaves: whether it does, and another one will greet. lost: whether a verdict is not to be relied on.
    """
    frames.send(host, {"pid": os.getpid(), "layers": layers})
    most = _largest_bytes() + _GROWTH_BYTES
    while (pair := frames.receive(host)) is not None:
        lost = False
        try:
            equal = equality.equal(pair["gold"], pair["answer"])
        except MemoryError:
            equal, lost = None, True
        except Exception:  # RecursionError and whatever else sympy may come to: this pair is not decided
            equal = None
        grown = _largest_bytes() > most
        frames.send(host, {"equal": equal, "lost": lost or (grown and equal is not True), "leaves": lost or grown})
        if lost or grown:
            os._exit(1)
    os._exit(0)


def _largest_bytes() -> int:
    """The most memory that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if forks.LINUX else 1)


def _warm_up() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for gold, answer in _PAIRS:
        equality.equal(gold, answer)
