"""Stages: a walk over the alphabet, stage by stage; how long each stage is has to be found.

Finding a stage's length is arithmetic in the head; checking it is one comparison, which the program makes and counts.
Each step is the same act at every number of stages: the next letter, the length, its use. A letter is one token, so
that what stands after it in the question is found in the same way wherever it stands. The answer is a check
number, in which every length and their order have a say: sums are right by luck, or with stages left out.
"""

import random
import re
import string
from collections.abc import Iterator

_LETTERS = string.ascii_uppercase  # A is 1
_FACTOR, _MODULUS = 7, 997
_BEGINNINGS = range(2, 100)
_NAMES = f"{', '.join(_LETTERS)} = range(1, {len(_LETTERS) + 1})"


def items(seed: int, size: int, *, least: int, most: int, largest_term: int) -> Iterator[tuple[str, str]]:
    """(question, answer) of `size` walks of `least` to `most` stages, each of at most `largest_term` letters."""
    generator = random.Random(seed)
    found = 0
    while found < size:
        stages = generator.randint(least, most)
        shown = [generator.randrange(len(_LETTERS))]
        while len(shown) <= stages and (after := _reached(shown, largest_term)):
            shown.append(generator.choice(after))
        if len(shown) > stages:  # else it went where every letter near has been
            found += 1
            begin = generator.choice(_BEGINNINGS)
            letters = " > ".join(_LETTERS[place] for place in shown)
            check = begin
            for before, after in zip(shown[:-1], shown[1:], strict=True):
                check = check * _FACTOR % _MODULUS + abs(after - before)
            yield f"Begin with {begin}. What is the check number of the walk {letters}?", str(check)


def program(question: str) -> list[str]:
    """One stage a line: whether going back ends where it began, else an error; then the check number with its length.

    The last line prints the check number and the errors.
    """
    shown, begin = _read(question)
    lines = [f"{_NAMES}\nm, t, e = {_MODULUS}, {begin}, 0"]
    for before, after in zip(shown[:-1], shown[1:], strict=True):
        term = _LETTERS.index(after) - _LETTERS.index(before)
        back = "-" if term > 0 else "+"
        lines.append(f"e += {before} != {after} {back} {abs(term)}; t = t * {_FACTOR} % m + {abs(term)}")
    return [*lines, "print(t, e)"]


def fresh(code: str, question: str, draw: int) -> str:
    """`code` beginning with another number."""
    _, begin = _read(question)
    other = random.Random(f"{question}/{draw}").randrange(10**5, 10**6)
    return re.sub(rf"m, t, e = {_MODULUS}, {begin}\b", f"m, t, e = {_MODULUS}, {other}", code)


def _reached(shown: list[int], largest_term: int) -> list[int]:
    """The letters that a stage can lead to and that are not shown yet."""
    at = shown[-1]
    near = range(max(at - largest_term, 0), min(at + largest_term + 1, len(_LETTERS)))
    return [place for place in near if place not in shown]


def _read(question: str) -> tuple[list[str], int]:
    begin, letters = re.findall(r"Begin with (\d+)\. What is the check number of the walk (.*)\?", question)[0]
    return letters.split(" > "), int(begin)
