"""A mathematical problem with final answers as its only label."""

import dataclasses
import re

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem.

    id: unique in its set and stable from run to run: it keys every random draw of the problem's search.
    answers: any of them is right; () where none is known.
    source: the name of the set it is from; of a procedural problem, its family. None where nobody said.
    level: a text, as the source has it: "1", "5", "4.5", "olympiad".
    solution: a worked solution, "" where there is none. Nothing is learned from it but by who asks for it.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    source: str | None = None
    level: str | None = None
    solution: str = ""

    def blind(self) -> "Problem":
        """The problem as a test-time search gets it: what is not there cannot leak."""
        return dataclasses.replace(self, answers=(), solution="")


def level_order(level: str) -> list[str | float]:
    """A key that sorts levels as people do: "2" before "4.5" before "10", and numbers before words."""
    parts = _NUMBER.split(level)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]
