"""Shortcuts: chains of operations that a careful way always gets right, and a shortcut only now and then.

Worked examples of easy problems mostly take shortcuts, as people do. Where one fails nobody says so: which step it was
is found by trying others, with the final answer as the only judge. Each level has one more kind of operation whose
shortcuts fail. The answer is a check number in which the value after each operation has a say, so that a mistake is
not made good by a later one.
"""

import dataclasses
import math
import random
import re
from collections.abc import Callable, Iterator

_FACTOR, _MODULUS = 7, 997
_BEGINNINGS = range(2, 100)
_NUMBERS = range(2, 10)  # one token each, and each once a problem: where a policy is in a chain, they say
_LARGEST = 9999
_TRIES = 40
_TAKEN = (0.45, 0.33, 0.22)  # how often worked examples go each way where all lead to the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """An operation on a value t with a number n, called `word`.

    ways: two shortcuts and the careful way, as code, or the only way. result: what the careful way gives. fails:
    whether the shortcuts give something else.
    """

    word: str
    ways: tuple[str, ...]
    result: Callable[[int, int], int]
    fails: Callable[[int, int], bool]


_KINDS = (
    _Kind(  # how many boats of n seats t people need
        word="boats",
        ways=("t // {n}", "int(t / {n})", "-(-t // {n})"),
        result=lambda t, n: -(-t // n),
        fails=lambda t, n: t % n != 0,
    ),
    _Kind(  # how far t is from n
        word="gap",
        ways=("{n} - t", "max({n} - t, 0)", "abs({n} - t)"),
        result=lambda t, n: abs(n - t),
        fails=lambda t, n: t > n,
    ),
    _Kind(  # what a clock of n hours shows after t of them
        word="clock",
        ways=("t % {n}", "t - t // {n} * {n}", "(t - 1) % {n} + 1"),
        result=lambda t, n: (t - 1) % n + 1,
        fails=lambda t, n: t % n == 0,
    ),
    _Kind(  # when two that come every t and every n days meet again
        word="meet",
        ways=("t * {n}", "{n} * t", "lcm({n}, t)"),
        result=math.lcm,
        fails=lambda t, n: math.gcd(t, n) > 1,
    ),
)
_ADD = _Kind(word="add", ways=("t + {n}",), result=lambda t, n: t + n, fails=lambda t, n: False)


def items(seed: int, size: int, *, failing: tuple[int, ...], least: int, most: int) -> Iterator[tuple[str, str]]:
    """(question, answer) of `size` chains of `least` to `most` operations.

    failing: how many operations of the first, second, ... kind there are whose shortcuts fail. The others are
    additions; where nothing fails, they are of all kinds.
    """
    generator = random.Random(seed)
    found = 0
    while found < size:
        begin = generator.choice(_BEGINNINGS)
        operations = _chain(generator, begin, failing, generator.randint(least, most))
        if operations is not None:
            found += 1
            check, value = 0, begin
            for kind, n in operations:
                value = kind.result(value, n)
                check = check * _FACTOR % _MODULUS + value
            words = " > ".join(f"{kind.word} {n}" for kind, n in operations)
            yield f"Begin with {begin}. What is the check number of {words}?", str(check)


def program(question: str) -> list[str]:
    """One operation a line, the careful way where shortcuts fail; the last line prints the check number."""
    begin, chain = re.findall(r"Begin with (\d+)\. What is the check number of (.*)\?", question)[0]
    taken = random.Random(question)
    value = int(begin)
    lines = [f"from math import lcm\nk, m, s, t = {_FACTOR}, {_MODULUS}, 0, {value}"]
    for operation in chain.split(" > "):
        word, n = operation.split()
        kind = next(kind for kind in (*_KINDS, _ADD) if kind.word == word)
        careful = len(kind.ways) == 1 or kind.fails(value, int(n))
        way = kind.ways[-1] if careful else taken.choices(kind.ways, _TAKEN)[0]
        lines.append(f"t = {way.format(n=n)}; s = s * k % m + t")
        value = kind.result(value, int(n))
    return [*lines, "print(s)"]


def fresh(code: str, question: str, draw: int) -> str:
    """`code` whose check number begins with another number than 0. The values stay: shortcuts hold for these alone."""
    other = random.Random(f"{question}/{draw}").randrange(10**5, 10**6)
    return code.replace(f"= {_FACTOR}, {_MODULUS}, 0,", f"= {_FACTOR}, {_MODULUS}, {other},")


def _chain(generator: random.Random, value: int, failing: tuple[int, ...], size: int) -> list[tuple[_Kind, int]] | None:
    """Kind and number of each operation; None where no number was found that does what it should."""
    plan = [(kind, True) for kind, count in zip(_KINDS, failing, strict=False) for _ in range(count)]
    while len(plan) < size:
        plan.append((_ADD if failing else generator.choice((*_KINDS, _ADD)), False))
    generator.shuffle(plan)
    operations = []
    for kind, should_fail in plan:
        for _ in range(_TRIES):
            n = generator.choice([n for n in _NUMBERS if all(n != other for _, other in operations)])
            result = kind.result(value, n)
            if kind.fails(value, n) == should_fail and 2 <= result <= _LARGEST:
                break
        else:
            return None
        operations.append((kind, n))
        value = result
    return operations
