"""Shortcuts: chains of operations that a careful way always gets right, and a shortcut only now and then.

Worked examples of easy problems mostly take shortcuts, as people do. Where one fails nobody says so: which step it was
is found by trying others, with the final answer as the only judge. Each level has one more kind of operation whose
shortcuts fail. Tables are another matter: which of three is the right one nobody knows before it was tried, but the
remainder that a program prints tells it afterwards. The answer is a check number in which the value after each
operation has a say, so that a mistake is not made good by a later one.
"""

import dataclasses
import math
import random
import re
from collections.abc import Callable, Iterator

_SIZE = 5  # operations of a problem
_BEGINNINGS = range(2, 100)
_NUMBERS = range(2, 10)  # one token each, and each once a problem: where a policy is in a chain, they say
_LARGEST = 500  # results stay small: copying a long answer is an art of its own
_TRIES = 100
_TAKEN = (0.45, 0.36, 0.19)  # how often worked examples go each way where all lead to the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """An operation on a value t with a number n, called `word`.

    ways: code for it. result: what a right way gives. right: which of the ways give it.
    """

    word: str
    ways: tuple[str, ...]
    result: Callable[[int, int], int]
    right: Callable[[int, int], tuple[int, ...]]


def _with_shortcuts(
    word: str, ways: tuple[str, ...], result: Callable[[int, int], int], fails: Callable[[int, int], bool]
) -> _Kind:
    """The last of `ways` is the careful one; `fails` says whether the others give something else."""
    every = tuple(range(len(ways)))
    return _Kind(word=word, ways=ways, result=result, right=lambda t, n: every[-1:] if fails(t, n) else every)


_KINDS = (
    _with_shortcuts(  # how many boats of n seats t people need
        "boats",
        ("t = t // n", "t = int(t / n)", "t = -(-t // n)"),
        result=lambda t, n: -(-t // n),
        fails=lambda t, n: t % n != 0,
    ),
    _with_shortcuts(  # how far t is from n squared
        "gap",
        ("t = n * n - t", "t = max(n * n - t, 0)", "t = abs(n * n - t)"),
        result=lambda t, n: abs(n * n - t),
        fails=lambda t, n: t > n * n,
    ),
    _with_shortcuts(  # what a clock of n hours shows after t of them
        "clock",
        ("t = t % n", "t = t - t // n * n", "t = (t - 1) % n + 1"),
        result=lambda t, n: (t - 1) % n + 1,
        fails=lambda t, n: t % n == 0,
    ),
    _with_shortcuts(  # when two that come every t and every n days meet again
        "meet", ("t = t * n", "t = n * t", "t = lcm(n, t)"), result=math.lcm, fails=lambda t, n: math.gcd(t, n) > 1
    ),
)
_ADD = _Kind(word="add", ways=("t = t + n",), result=lambda t, n: t + n, right=lambda t, n: (0,))


def _tables(t: int, n: int) -> int | None:
    """How many tables t people fill to the last seat, of n, n + 1 or n + 2 seats: None where not one of these can."""
    filled = [t // seats for seats in (n, n + 1, n + 2) if t % seats == 0]
    return filled[0] if len(filled) == 1 else None


_TABLES = _Kind(
    word="tables",
    ways=("t, r = divmod(t, n)", "t, r = divmod(t, n + 1)", "t, r = divmod(t, n + 2)"),
    result=lambda t, n: _tables(t, n) or 0,
    right=lambda t, n: tuple(more for more in range(3) if t // (n + more) == _tables(t, n)),
)


def items(seed: int, size: int, *, failing: int, tables: float) -> Iterator[tuple[str, str]]:
    """(question, answer) of `size` problems.

    failing: how many kinds of operations have one whose shortcuts fail; the others are additions. Where it is 0 they
    are of all kinds, and all shortcuts hold. tables: the share of problems that have some.
    """
    generator = random.Random(seed)
    found = 0
    while found < size:
        plan = _plan(generator, failing, generator.random() < tables)
        for _ in range(_TRIES):  # else plans that are hard to fill would be rare
            begin = generator.choice(_BEGINNINGS)
            if operations := _chain(generator, begin, plan):
                found += 1
                check, value = 0, begin
                for kind, n in operations:
                    value = kind.result(value, n)
                    check = 2 * check + value
                words = ", ".join(f"{n}: {kind.word}" for kind, n in operations)
                yield f"Begin with {begin}. What is the check number of {words}?", str(check)
                break


def program(question: str) -> list[str]:
    """One operation a line, the careful way where shortcuts fail; the last line prints the check number.

    Each line names its number before it does anything: the next number of the question is what stands behind the one of
    the line before, whichever way that went.
    """
    begin, chain = re.findall(r"Begin with (\d+)\. What is the check number of (.*)\?", question)[0]
    taken = random.Random(question)
    value = int(begin)
    lines = [f"from math import lcm\nr, s, t = 0, 0, {value}"]
    for operation in chain.split(", "):
        n, word = operation.split(": ")
        kind = next(kind for kind in (*_KINDS, _ADD, _TABLES) if kind.word == word)
        right = kind.right(value, int(n))
        (way,) = taken.choices(right, [_TAKEN[each] for each in right])
        lines.append(f"n = {n}; {kind.ways[way]}; s = s + s + t")
        value = kind.result(value, int(n))
    return [*lines, "print(s, r)"]


def fresh(code: str, question: str, draw: int) -> str:
    """`code` whose check number begins with another number than 0. The values stay: shortcuts hold for these alone."""
    other = random.Random(f"{question}/{draw}").randrange(10**5, 10**6)
    return code.replace("= 0, 0,", f"= 0, {other},")


def _plan(generator: random.Random, failing: int, tables: bool) -> list[tuple[_Kind, tuple[int, ...]]]:
    """The kinds of a problem's operations, in any order, and which of their ways are to be right."""
    kinds = [*_KINDS[:failing], *[_TABLES] * tables]
    if not failing:  # any number of additions: it is not to tell easy problems from hard ones
        kinds += generator.choices(_KINDS, k=generator.randint(0, _SIZE - len(kinds)))
    kinds += [_ADD] * (_SIZE - len(kinds))

    def right(kind: _Kind) -> tuple[int, ...]:
        every = tuple(range(len(kind.ways)))
        return (generator.choice(every),) if kind is _TABLES else every[-1:] if failing else every

    return [(kind, right(kind)) for kind in kinds]


def _chain(
    generator: random.Random, value: int, plan: list[tuple[_Kind, tuple[int, ...]]]
) -> list[tuple[_Kind, int]] | None:
    """Kind and number of each operation; None where there was no number that does what it should."""
    operations: list[tuple[_Kind, int]] = []
    for kind, right in generator.sample(plan, len(plan)):
        left = [n for n in _NUMBERS if all(n != taken for _, taken in operations)]
        fitting = [n for n in left if kind.right(value, n) == right and 2 <= kind.result(value, n) <= _LARGEST]
        if not fitting:
            return None
        operations.append((kind, generator.choice(fitting)))
        value = kind.result(value, operations[-1][1])
    return operations
