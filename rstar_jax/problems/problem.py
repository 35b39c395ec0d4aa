"""A mathematical problem with a final answer as its only label."""

import dataclasses
from collections.abc import Sequence

_OR = "\x1f"  # the unit separator, which no answer has


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem. `level` and `family` are None for problems that come without them.

    id: unique in its set and stable from run to run: it keys every random draw of the problem's search.
    answer: one text; of several acceptable answers, what `several` makes of them.
    """

    id: str
    question: str
    answer: str
    level: int | None = None
    family: str | None = None


def several(answers: Sequence[str]) -> str:
    """Acceptable answers as one text, which a file, a tree and a pair for the grader hold like any other."""
    return _OR.join(answers)


def acceptable(answer: str) -> list[str]:
    """The answers, any of which is right, that `answer` stands for."""
    return answer.split(_OR)
