"""JSONL files of a user: problems, and rows to train on."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from rstar_jax.problems.problem import Problem


def read_problems(path: epath.PathLike) -> list[Problem]:
    """Reads {"question", "answer"} lines; `index` or `id`, `level` and `family` are kept where they are given.

    Raises FileNotFoundError, or ValueError naming the line and what was expected there.
    """
    problems = []
    ids: set[str] = set()
    for number, where, row in _lines(path):
        if not isinstance(row, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
            raise ValueError(f'{where}: expected an object with "question" (text) and "answer"')
        problem = _problem(row, number)
        if problem.id in ids:
            raise ValueError(f"{where}: id {problem.id!r} occurs twice")
        ids.add(problem.id)
        problems.append(problem)
    return problems


def read_rows(path: epath.PathLike, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Reads objects that have text under each of `fields`. Raises as `read_problems` does."""
    rows = []
    for _, where, row in _lines(path):
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
            raise ValueError(f"{where}: expected an object with the texts {', '.join(fields)}")
        rows.append(row)
    return rows


def _lines(path: epath.PathLike) -> Iterator[tuple[int, str, Any]]:
    """(line number, "FILE, line N", what the line holds) of every line that is not blank; at least one."""
    file = epath.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    empty = True
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        empty = False
        where = f"{file}, line {number}"
        try:
            yield number, where, json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    if empty:
        raise ValueError(f"{file}: empty, expected one JSON object a line")


def _problem(row: dict[str, Any], number: int) -> Problem:
    level = row.get("level")
    return Problem(
        id=str(row.get("id", row.get("index", number))),
        question=row["question"].strip(),
        answer=str(row["answer"]),
        level=level if isinstance(level, int) else None,
        family=row.get("family"),
    )
