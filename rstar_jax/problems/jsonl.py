"""JSONL files of a user: problems, and rows to train on."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from etils import epath

from rstar_jax import json_lines
from rstar_jax.json_lines import Digits
from rstar_jax.problems.problem import Problem, several

_MOST_DIGITS = 400


def read_problems(path: epath.PathLike) -> list[Problem]:
    """Reads {"question", "answer"} lines; `index` or `id`, `level` and `family` are kept where they are given.

    An answer is a text, a number, or a list of several acceptable ones. A line without an id is called by its number.
    Raises FileNotFoundError, or ValueError naming file and line and what was expected there.
    """
    rows = []
    given: set[str] = set()
    for number, where, row in json_lines.read(path, digits=True):
        if not isinstance(row, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
            raise ValueError(f'{where}: expected an object with "question" (text) and "answer"')
        if isinstance(row["question"], Digits) or not row["question"].strip():
            raise ValueError(f'{where}: "question": expected a text that is not empty')
        own = row["id"] if row.get("id") is not None else row.get("index")
        if own is not None:
            if not isinstance(own, str):
                raise ValueError(f"{where}: id: expected a text or an integer, got {json_lines.shown(own)}")
            if own in given:
                raise ValueError(f"{where}: id {str(own)!r} occurs twice")
            given.add(str(own))
        rows.append((number, where, own, row))
    return [_problem(row, where, _name(number, own, given)) for number, where, own, row in rows]


def read_rows(path: epath.PathLike, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Reads objects that have text under each of `fields`. Raises as `read_problems` does."""
    rows = []
    for _, where, row in json_lines.read(path):
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
            raise ValueError(f"{where}: expected an object with the texts {', '.join(fields)}")
        rows.append(row)
    return rows


def answer_text(value: Any) -> str:
    """An answer of a JSON file as the grader takes it: a number in full, several joined (see `problem.several`).

    Raises ValueError that says what was expected.
    """
    if isinstance(value, Digits):
        number = Decimal(value)
        if abs(number.adjusted()) > _MOST_DIGITS:
            raise ValueError(f"a number of at most {_MOST_DIGITS} digits")
        return format(number, "f") if "e" in value.lower() else str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not any(isinstance(one, list | dict) for one in value):
        return several([answer_text(one) for one in value])
    raise ValueError("a text, a number, or a list of them")


def _name(number: int, own: str | None, given: set[str]) -> str:
    if own is not None:
        return str(own)
    return str(number) if str(number) not in given else f"line {number}"


def _problem(row: dict[str, Any], where: str, name: str) -> Problem:
    try:
        answer = answer_text(row["answer"])
    except ValueError as error:
        raise ValueError(f'{where}: "answer": expected {error}, got {json_lines.shown(row["answer"])}') from None
    family = row.get("family")
    if family is not None and (not isinstance(family, str) or isinstance(family, Digits)):
        raise ValueError(f'{where}: "family": expected a text, got {json_lines.shown(family)}')
    return Problem(
        id=name, question=row["question"].strip(), answer=answer, level=_level(row.get("level"), where), family=family
    )


def _level(value: Any, where: str) -> int | None:
    """5, 5.0 and, as MATH has it, "Level 5"."""
    if value is None:
        return None
    text = str(value).removeprefix("Level ").removesuffix(".0") if isinstance(value, str) else ""
    if not text.isascii() or not text.removeprefix("-").isdigit():
        if text == "?" and value == "Level ?":  # MATH has two of them
            return None
        raise ValueError(f'{where}: "level": expected an integer, got {json_lines.shown(value)}')
    return int(text)
