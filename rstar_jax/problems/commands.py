"""`rstar problems`: writes what a name stands for as JSON lines, to look at, or for machines without a network."""

import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from rstar_jax import files
from rstar_jax.problems import named
from rstar_jax.problems.mixture import Mixture
from rstar_jax.problems.problem import Problem


def write(*, problems: str, output: str) -> None:
    """Writes the problems, and of a mixture OUTPUT.report: counts by source, and the pairs that were found."""
    source, path = named.find(problems), epath.Path(output)
    if isinstance(source, Mixture):
        drawn = source.draw()
        _publish(path.with_name(f"{path.name}.report"), drawn.rows())
        found = drawn.problems
    else:
        found = source.read()
    _publish(path, map(_row, found))
    print(path)


def _row(problem: Problem) -> dict[str, Any]:
    """A problem as a row that is read back with the columns of `Fields()`."""
    answer = list(problem.answers) if len(problem.answers) > 1 else "".join(problem.answers)
    row = {"id": problem.id, "question": problem.question, "answer": answer}
    row |= {"source": problem.source, "level": problem.level, "solution": problem.solution}
    return {name: value for name, value in row.items() if value or name == "answer"}


def _publish(path: epath.Path, rows: Iterable[dict[str, Any]]) -> None:
    """Row by row: sets may be larger than what one would hold as one text."""
    with files.staged(path) as local, open(local, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
