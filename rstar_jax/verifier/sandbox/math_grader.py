"""Compares two answers with math-verify, in a process that can be killed in the middle of a thought.

    host --pair--> grader, forked from --> template (math-verify loaded, walls up), which forks a new one when it ends

math-verify's own alarms cannot stop a computation inside C, and raise off the main thread; so they are off, and the
host kills the grader at its deadline. The template makes that cheap: a new grader costs a fork, not an import.
"""

import gc
import logging
import os
import re
import resource
import socket
import sys
from fractions import Fraction

import sympy
from math_verify import parse, verify

from . import decimals, forks, frames, isolation, python_text, syscalls

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
    expected = parse(_as_latex(gold), parsing_timeout=None)
    if not expected:
        return None
    given = parse(_as_latex(answer), parsing_timeout=None)
    if given and verify(expected, given, strict=True, timeout_seconds=None):
        return True
    return _equals_python(gold, expected, answer)


def _equals_python(gold: str, expected: list, answer: str) -> bool:
    """Whether an answer as Python writes it, or a decimal of an irrational number, means the gold answer."""
    value = python_text.read(answer)
    if isinstance(value, tuple | list | set):
        return _equal_sequences(gold, value)
    if isinstance(value, sympy.Set):
        return expected[0] == value
    if not isinstance(value, sympy.Expr | sympy.MatrixBase):
        return False
    exact = expected[0]
    if isinstance(exact, sympy.Expr) and value.has(sympy.I):
        exact = exact.subs({symbol: sympy.I for symbol in exact.free_symbols if symbol.name == "i"})
    if verify([exact], [value], strict=True, timeout_seconds=None):
        return True
    real = isinstance(exact, sympy.Expr) and exact.is_real and not exact.is_Float and exact.is_number
    return bool(real) and decimals.stands_for(answer, Fraction(str(sympy.N(exact, 40))))


def _equal_sequences(gold: str, value: tuple | list | set) -> bool:
    """A tuple is ordered and has parentheses; a list means an enumeration without any; a set is either or in braces."""
    text = re.sub(r"\\\\(left|right)(?![a-z])|[$\\s]", "", gold).replace("\\{", "{").replace("\\}", "}")
    bracket = text[:1] if (text[:1], text[-1:]) in (("(", ")"), ("{", "}"), ("[", "]")) else ""
    if bracket not in {tuple: ("(",), list: ("",), set: ("", "{")}[type(value)]:
        return False
    parts, rest = _split(text[1:-1] if bracket else text), list(value)
    if len(parts) != len(rest) or not all(isinstance(element, sympy.Expr) for element in rest):
        return False
    for part in parts:
        wanted = parse(_as_latex(part), parsing_timeout=None)
        places = range(1) if isinstance(value, tuple) else range(len(rest))
        for place in places:
            if wanted and verify(wanted, [rest[place]], strict=True, timeout_seconds=None):
                del rest[place]
                break
        else:
            return False
    return True


def _split(text: str) -> list[str]:
    """The parts between commas that no bracket holds."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _as_latex(text: str) -> str:
    text = text.replace("\\$", "")  # a dollar as a unit
    return text if "$" in text or "\\boxed" in text else f"${text}$"
