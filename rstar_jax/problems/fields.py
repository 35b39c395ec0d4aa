r"""Which columns of a row hold a problem, and how its answer is taken out of its column.

{"problem": "...", "solution": "... so it is $\boxed{7}$.", "level": "Level 5"}
Fields(question="problem", answer="solution", behind="\\boxed")
"""

import dataclasses
import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from rstar_jax import json_lines
from rstar_jax.json_lines import Digits
from rstar_jax.problems.problem import Problem
from rstar_jax.problems.rows import Row
from rstar_jax.trajectory import steps

_log = logging.getLogger(__name__)
BOX = "\\boxed"
_MOST_DIGITS = 400
_BOX_WITHOUT_BRACES = re.compile(r"\\boxed\s+([^\s$]+)")
_NO_LETTERS = re.compile(r"\\text\w*|[^a-z]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """The names of the columns.

    question, answer: every row has them. A list in the answer's column holds several acceptable ones.
    id, level, solution: None is the column of that name, of an id also `index`, in rows that have one; "" is none. A
        name that is given stands in every row.
    source: as these, of a set without a name; in one with a name, it is told apart by this column: "NAME/olympiads".
    behind: what stands before the answer in the text of its column: "####" or "The answer is:", whose last occurrence
        counts, up to the end of its line; "\\boxed", whose last braces count. None: the column is the answer.
    one_box: rows with several boxes that differ have no answer: they are the parts of a question with several.
    no_answer: words that an answer's letters come to where there is none ("proof", "qed").
    """

    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    level: str | None = None
    solution: str | None = None
    source: str | None = None
    behind: str | None = None
    one_box: bool = False
    no_answer: tuple[str, ...] = ()

    def read(
        self,
        rows: Iterable[Row],
        *,
        name: str | None = None,
        only: Mapping[str, tuple[str, ...]] | None = None,
        blind: bool = False,
    ) -> Iterator[tuple[int, str, Problem | None]]:
        """Number, place, and the problem of each row; its id is "" where the row has none. None: it has no answer.

        name, only: as `sources.FileProblems` has them. blind: a row need not have an answer.
        Raises ValueError that names place, column and what was expected there.
        """
        for number, where, row in rows:
            if not isinstance(row, Mapping):
                raise ValueError(f"{where}: expected an object with {_quoted(self.question, self.answer)}")
            if only and not all(
                _text(_column(row, column, where)).removeprefix(f"{name}/") in wanted for column, wanted in only.items()
            ):
                continue
            yield number, where, self._problem(row, where, name, blind)

    def _problem(self, row: Mapping[str, Any], where: str, name: str | None, blind: bool) -> Problem | None:
        question = row.get(self.question)
        if not isinstance(question, str) or (self.answer not in row and not blind):
            told = f'"{self.question}" (text)' + ("" if blind else f' and "{self.answer}"')
            raise ValueError(f"{where}: expected an object with {told}")
        if isinstance(question, Digits) or not question.strip():
            raise ValueError(f'{where}: "{self.question}": expected a text that is not empty')
        answers: tuple[str, ...] = ()
        if not (blind and row.get(self.answer) in (None, "")):
            answers = self._answers(row[self.answer], where)
            if not answers and self._may_miss:
                return None
        source = self._own(row, where, "source") if self.source or name is None else None
        parts = [name, source and source.removeprefix(f"{name}/")]  # what we have written has the name already
        level = self._own(row, where, "level")
        solution = self._own(row, where, "solution")
        return Problem(
            id=self._id(row, where),
            question=question.strip(),
            answers=() if blind else answers,
            source=sys.intern("/".join(filter(None, parts))) or None,
            level=None if level is None else _level(level),
            solution="" if blind or solution is None else solution,
        )

    @property
    def _may_miss(self) -> bool:
        """Whether rows without an answer are left out; else nobody knows the answer of their problem."""
        return self.behind is not None or bool(self.no_answer)

    def _answers(self, value: Any, where: str) -> tuple[str, ...]:
        """The answers of a column; () if it has none."""
        if value is None and self._may_miss:
            return ()
        try:
            found = answers(value)
        except ValueError as error:
            raise ValueError(f'{where}: "{self.answer}": expected {error}, got {json_lines.shown(value)}') from None
        if self.behind is not None:
            found = tuple(map(self._taken_out, found))
        return tuple(answer for answer in found if answer.strip() and _letters(answer) not in self.no_answer)

    def _taken_out(self, text: str) -> str:
        """The answer in a text, "" if there is none."""
        if self.behind == BOX:
            if self.one_box and len({"".join(box.split()) for box in _boxes(text)}) > 1:
                return ""
            return next(_boxes(text), "")
        _, found, rest = text.rpartition(self.behind)
        return rest.strip().split("\n")[0].strip() if found else ""

    def _id(self, row: Mapping[str, Any], where: str) -> str:
        if self.id == "":
            return ""
        value = row.get("index") if self.id is None and row.get("id") is None else row.get(self.id or "id")
        if value is None and self.id is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(
                f"{where}: {self.id or 'id'}: expected a text or an integer, got {json_lines.shown(value)}"
            )
        return str(value)

    def _own(self, row: Mapping[str, Any], where: str, field: str) -> str | None:
        """The text of a column that may not be there."""
        column = getattr(self, field)
        if column == "":
            return None
        value = row.get(field) if column is None else _column(row, column, where)
        if field == "solution" and isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)  # OlympiadBench has lists of them
        if value is None or (isinstance(value, str) and (field == "level" or not isinstance(value, Digits))):
            return value
        if field == "level" and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        told = "a text or a number" if field == "level" else "a text"
        raise ValueError(f'{where}: "{column or field}": expected {told}, got {json_lines.shown(value)}')


def answers(value: Any) -> tuple[str, ...]:
    """The acceptable answers that a column holds, as the grader takes them: numbers in full.

    Raises ValueError that says what was expected.
    """
    match value:
        case Digits():
            number = Decimal(value)
            if abs(number.adjusted()) > _MOST_DIGITS:
                raise ValueError(f"a number of at most {_MOST_DIGITS} digits")
            return (format(number, "f") if "e" in value.lower() else str(value),)
        case str():
            return (value,)
        case bool():
            pass
        case int() | float() if math.isfinite(value):
            return answers(Digits(value))
        case list() if value and not any(isinstance(one, list | dict) for one in value):
            return tuple(answer for one in value for answer in answers(one))
    raise ValueError("a text, a number, or a list of them")


def collect(
    rows: Iterable[tuple[int, str, Problem | None]], what: str, *, prefix: str = "", limit: int | None = None
) -> list[Problem]:
    """The first `limit` problems of rows, `prefix` before each id; a row without an id is called by its number.

    what: the rows, as the log calls them where it says how many have no answer and are left out.
    Raises ValueError where an id occurs twice.
    """
    made: list[tuple[int, Problem]] = []
    given: set[str] = set()
    seen = 0
    for number, where, problem in rows:
        if len(made) == limit:
            break
        seen += 1
        if problem is None:
            continue
        if problem.id in given:
            raise ValueError(f"{where}: id {problem.id!r} occurs twice")
        if problem.id:
            given.add(problem.id)
        made.append((number, problem))
    if seen > len(made):
        _log.info("%s: %d of %d problems are left out: no answer found", what, seen - len(made), seen)
    named = ((own.id or (f"line {number}" if str(number) in given else str(number)), own) for number, own in made)
    return [dataclasses.replace(own, id=prefix + name.removeprefix(prefix)) for name, own in named]


def _boxes(text: str) -> Iterator[str]:
    """The contents of the boxes of a text that are not empty, the last one first."""
    end = len(text)
    while (start := text.rfind(BOX, 0, end)) >= 0:
        bare = _BOX_WITHOUT_BRACES.match(text, start, end)
        content = bare[1] if bare else steps.boxed_answer(text[start:end])
        if content:
            yield content
        end = start


def _letters(answer: str) -> str:
    return "" if any(map(str.isdigit, answer)) else _NO_LETTERS.sub("", answer.lower())


def _level(text: str) -> str | None:
    """5, 5.0 and, as MATH has it, "Level 5" are "5"; "Level ?", of which it has two, is none."""
    level = text.strip().removeprefix("Level ").removesuffix(".0")
    return None if level in ("", "?") else sys.intern(level)


def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise ValueError(f'{where}: "{column}": no such field, only {_quoted(*row)}')
    return row[column]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_lines.shown(value)


def _quoted(*names: str) -> str:
    return ", ".join(f'"{name}"' for name in names)
