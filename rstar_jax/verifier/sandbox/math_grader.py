"""Compares two answers with math-verify, in a process that can be killed in the middle of a thought.

    host --pair--> grader, forked from --> template (math-verify loaded, walls up), which forks a new one when it ends

math-verify's own alarms cannot stop a computation inside C, and raise off the main thread; so they are off, and the
host kills the grader at its deadline. The template makes that cheap: a new grader costs a fork, not an import.
"""

import gc
import logging
import os
import resource
import socket
import sys

from . import forks, frames, isolation, syscalls

_MEMORY_BYTES = 2 << 30


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
            equal = _compare(pair["gold"], pair["answer"])
        except BaseException:  # RecursionError, MemoryError and whatever else a parser may come to
            equal = None
        frames.send(host, {"equal": equal})
    os._exit(0)


def _warm_up() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for gold, answer in (("\\frac{1}{2}", "0.5"), ("x^2+1", "1+x^2"), ("(1,2]", "(1,2]"), ("\\sqrt{2}", "2^{1/2}")):
        _compare(gold, answer)


def _compare(gold: str, answer: str) -> bool | None:
    """Whether both texts mean the same; None if the gold answer cannot be read."""
    from math_verify import parse, verify  # here, not above: the import takes a second, and the host never needs it

    expected = parse(_as_latex(gold), parsing_timeout=None)
    if not expected:
        return None
    given = parse(_as_latex(answer), parsing_timeout=None)
    return bool(given) and bool(verify(expected, given, strict=True, timeout_seconds=None))


def _as_latex(text: str) -> str:
    text = text.replace("\\$", "")  # a dollar as a unit
    return text if "$" in text or "\\boxed" in text else f"${text}$"
