"""A mathematical problem with a final answer as its only label."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem. `level` and `family` are None for problems that come without them.

    id: unique in its set and stable from run to run: it keys every random draw of the problem's search.
    """

    id: str
    question: str
    answer: str
    level: int | None = None
    family: str | None = None
