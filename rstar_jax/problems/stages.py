"""Stages: a number passes through a machine, stage by stage, and what each stage does has to be found.

Every stage adds a number, takes one away, or multiplies by one, and one example shows what goes in and what comes out.
Finding a stage's rule is arithmetic in the head; checking it is one comparison, which the program makes and counts.
Each step is the same act at every number of stages: the next two numbers, the rule, its use.
"""

import random
import re
from collections.abc import Iterator

_FACTORS = range(2, 4)
_SHOWN = range(2, 41)
_LARGEST_ANSWER = 999

Rule = tuple[str, int]


def items(seed: int, size: int, *, least: int, most: int, largest_term: int) -> Iterator[tuple[str, str]]:
    """(question, answer) of `size` machines of `least` to `most` stages, which add or take away at most `largest_term`."""
    generator = random.Random(seed)
    found = 0
    while found < size:
        stages = generator.randint(least, most)
        shown = [generator.choice(_SHOWN)]
        rules = []
        while len(rules) < stages and (rule := _draw(generator, shown, largest_term)):
            rules.append(rule)
            shown.append(_apply(shown[-1], rule))
        entered = value = generator.choice(_SHOWN)
        for rule in rules:
            value = _apply(value, rule)
        if len(rules) == stages and entered != shown[0] and abs(value) <= _LARGEST_ANSWER:
            found += 1
            yield f"Stage by stage {' > '.join(map(str, shown))}. What comes of {entered}?", str(value)


def program(question: str) -> list[str]:
    """One stage a line: undone it gives what went in, else it counts as an error; then it is done to the number asked.

    The last line prints the result and the errors.
    """
    shown, entered = _read(question)
    lines = [f"t, e = {entered}, 0"]
    for before, after in zip(shown[:-1], shown[1:], strict=True):
        sign, number = _rule(before, after)
        undone = {"+": "-", "-": "+", "*": "/"}[sign]
        lines.append(f"e += {before} != {after} {undone} {number}; t {sign}= {number}")
    return [*lines, "print(t, e)"]


def fresh(code: str, question: str, draw: int) -> str:
    """`code` for another number to enter."""
    _, entered = _read(question)
    other = random.Random(f"{question}/{draw}").randrange(10**5, 10**6)
    return re.sub(rf"t, e = {entered}\b", f"t, e = {other}", code)


def _read(question: str) -> tuple[list[int], int]:
    *shown, entered = map(int, re.findall(r"\d+", question))
    return shown, entered


def _draw(generator: random.Random, shown: list[int], largest_term: int) -> Rule | None:
    """A rule that leads on from the last number to one that is not shown yet; None if none of the kind drawn does."""
    sign = generator.choice("+-*")
    numbers = _FACTORS if sign == "*" else range(1, largest_term + 1)
    fitting = []
    for number in numbers:
        after = _apply(shown[-1], (sign, number))
        if after in _SHOWN and after not in shown and _rule(shown[-1], after) == (sign, number):
            fitting.append((sign, number))
    return generator.choice(fitting) if fitting else None


def _rule(before: int, after: int) -> Rule:
    """What a stage does: it multiplies where it can have multiplied."""
    if after % before == 0 and after // before in _FACTORS:
        return "*", after // before
    return ("+", after - before) if after > before else ("-", before - after)


def _apply(value: int, rule: Rule) -> int:
    sign, number = rule
    return {"+": value + number, "-": value - number, "*": value * number}[sign]
