"""Compares two answers in a process that can be killed in the middle of a thought.

    host --pair--> grader, forked from --> template (sympy loaded, walls up), which forks a new one when it ends

No alarm can stop a computation inside C, so the host kills the grader at its deadline. The template makes that cheap: a
new grader costs a fork, not an import.
"""

import gc
import logging
import os
import resource
import socket
import sys

from . import forks, frames, isolation, syscalls
from .answers import equality

_MEMORY_BYTES = 2 << 30
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
    layers = isolation.confine(memory_bytes=_MEMORY_BYTES, file_bytes=1 << 16, own_pids=False)
    own_filter = None
    if "seccomp" in layers:
        own_filter = syscalls.Filter(syscalls.program_filter(may_fork_siblings=False))
    gc.collect()
    gc.freeze()
    while True:
        pid = forks.fork()
        if pid == 0:
            try:
                isolation.die_with_parent()
                if own_filter is not None:
                    own_filter.install()
                _serve(host, layers)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) == 0:  # it left because the host is gone
            os._exit(0)


def _serve(host: socket.socket, layers: list[str]) -> None:
    frames.send(host, {"pid": os.getpid(), "layers": layers})
    while (pair := frames.receive(host)) is not None:
        try:
            equal = equality.equal(pair["gold"], pair["answer"])
        except BaseException:  # RecursionError, MemoryError and whatever else a parser may come to
            equal = None
        frames.send(host, {"equal": equal})
    os._exit(0)


def _warm_up() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for gold, answer in _PAIRS:
        equality.equal(gold, answer)
