"""Compares two answers with math-verify, in a process that can be killed in the middle of a thought.

    host --pair--> grader, forked from --> template (math-verify loaded, walls up), which forks a new one when it ends

math-verify's own alarms cannot stop a computation inside C, and raise off the main thread; so they are off, and the
host kills the grader at its deadline. The template makes that cheap: a new grader costs a fork, not an import.
"""

import functools
import gc
import logging
import math
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
_FORMS = (
    r"\frac{1}{2}", r"\frac{3\sqrt{2}}{4}", r"1+\sqrt{5}", r"\sqrt[3]{2}", r"x^2+2x+1", r"(x-1)(x+2)^2",
    r"\frac{x+1}{x-1}", r"2\pi", r"\frac{\pi}{4}-1", r"e^{2}", r"2^{10}", r"(1,2]",
    r"\left[\frac{\pi^2}{8},\infty\right)", r"(-\infty,0)\cup(1,\infty)", r"(-\sqrt{3},\sqrt{3})", r"\{1,2\}",
    r"\{1\pm\sqrt{5}\}", r"1,-2", r"y=2x+3", r"x\in[-2,7]", r"x>1", r"2\le x<3",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left(3,\frac{\pi}{2}\right)", r"3+4i", r"\log_2 3", r"\ln 2",
    r"\sin x", r"\tan^2(y)", r"\cot x", r"120^\circ", r"50\%", r"\binom{5}{2}", r"5!", r"|x|", r"4210_{5}",
    r"\text{(A)}", r"3\text{ cm}", r"\$5", r"0.\overline{3}", r"2\frac{1}{3}", r"10,000", r"f(x)=x^2",
    r"\frac{dy}{dx}", r"\sum_{k=1}^{3}k", r"a_1",
)  # fmt: skip
_DIGITS = 15
_DIFFERENT = 1e-3  # relative; far from all that rounding could explain


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
    for text in _FORMS:  # the parser learns its decisions from what it reads: a form costs ten times as much at first
        _parse(text)
    for gold, answer in ((r"\frac{1}{2}", "0.5"), ("x^2+1", "1+x^2"), ("(1,2]", "(1,2]"), (r"\sqrt{2}", "2**(1/2)")):
        _compare(gold, answer)


def _compare(gold: str, answer: str) -> bool | None:
    """Whether both texts mean the same; None if the gold answer cannot be read."""
    expected = _parse(gold)
    if not expected:
        return None
    given = _parse(answer)
    return bool(given and _equal(expected, given)) or _equals_python(gold, expected, answer)


@functools.lru_cache(maxsize=1024)  # the answers to one problem come together
def _parse(text: str) -> list:
    text = text.replace("\\$", "")  # a dollar as a unit
    return parse(text if "$" in text or "\\boxed" in text else f"${text}$", parsing_timeout=None)


def _equal(expected: list, given: list) -> bool:
    if _differ_somewhere(expected[0], given[0]):
        return False  # which algebra would take a hundred times as long to find out
    return verify(expected, given, strict=True, timeout_seconds=None)


def _differ_somewhere(left: object, right: object) -> bool:
    """Whether two expressions clearly differ in value at a point where all of their symbols are positive."""
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return False
    symbols = left.free_symbols | right.free_symbols
    names = sorted({symbol.name for symbol in symbols})
    point = {symbol: sympy.Rational(2 * names.index(symbol.name) + 7, 11) for symbol in symbols}
    try:
        one, other = (complex(sympy.N(expression.subs(point), _DIGITS)) for expression in (left, right))
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return False
    return math.isfinite(abs(one - other)) and abs(one - other) > _DIFFERENT * max(abs(one), abs(other))


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
    if _equal([exact], [value]):
        return True
    real = isinstance(exact, sympy.Expr) and exact.is_real and not exact.is_Float and exact.is_number
    return bool(real) and decimals.stands_for(answer, Fraction(str(sympy.N(exact, 40))))


def _equal_sequences(gold: str, value: tuple | list | set) -> bool:
    """A tuple is ordered and has parentheses; a list means an enumeration without any; a set is either or in braces."""
    text = re.sub(r"\\(left|right)(?![a-z])|\$", "", gold).replace("\\{", "{").replace("\\}", "}").strip()
    bracket = text[:1] if (text[:1], text[-1:]) in (("(", ")"), ("{", "}"), ("[", "]")) else ""
    if bracket not in {tuple: ("(",), list: ("",), set: ("", "{")}[type(value)]:
        return False
    parts, rest = _split(text[1:-1] if bracket else text), list(value)
    if len(parts) != len(rest) or not all(isinstance(element, sympy.Expr) for element in rest):
        return False
    for part in parts:
        wanted = _parse(part)
        places = range(1) if isinstance(value, tuple) else range(len(rest))
        for place in places:
            if wanted and _equal(wanted, [rest[place]]):
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
