"""Problems from a user's JSONL file: one object a line with `question` and `answer`."""

import json
from typing import Any

from etils import epath

from rstar_jax.problems.problem import Problem


def read_problems(path: epath.PathLike) -> list[Problem]:
    """Reads {"question", "answer"} lines; `index` or `id`, `level` and `family` are kept where they are given.

    Raises FileNotFoundError, or ValueError naming the line and what was expected there.
    """
    file = epath.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such problem file")
    problems = []
    ids: set[str] = set()
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        problem = _problem(f"{file}, line {number}", line, number)
        if problem.id in ids:
            raise ValueError(f"{file}, line {number}: id {problem.id!r} occurs twice")
        ids.add(problem.id)
        problems.append(problem)
    if not problems:
        raise ValueError(f'{file}: no problems in it, expected lines of {{"question": ..., "answer": ...}}')
    return problems


def _problem(where: str, line: str, number: int) -> Problem:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
        raise ValueError(f'{where}: expected an object with "question" (text) and "answer", got {line[:80]}')
    level = row.get("level")
    return Problem(
        id=str(row.get("id", row.get("index", number))),
        question=row["question"].strip(),
        answer=str(row["answer"]),
        level=level if isinstance(level, int) else None,
        family=row.get("family"),
    )
