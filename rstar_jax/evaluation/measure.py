"""Measures: a row a problem and measurement, written as they come, so that who was killed goes on."""

import json
from collections.abc import Sequence

from etils import epath

from rstar_jax import files, json_lines
from rstar_jax.evaluation.measurements import Bench, Measurement, Row
from rstar_jax.problems import Problem


def measure(
    problems: Sequence[Problem],
    measurements: Sequence[Measurement],
    bench: Bench,
    folder: epath.PathLike | None = None,
    piece: int = 256,
) -> dict[str, list[Row]]:
    """{name of a measurement: its rows, in the order of the problems} (`measurements`).

    folder: FOLDER/NAME-00002-of-00006.jsonl hold the rows of so many problems each, as soon as they are known; what is
    there is not measured again, so that who calls must see to it that it is of the same models and configuration.
    piece: how many problems are answered together, and lost at most by who is killed.
    Raises: ValueError that names a file which holds the rows of other problems.
    """
    measured: dict[str, list[Row]] = {}
    total = max(-(-len(problems) // piece), 1)
    for measurement in measurements:
        found: list[Row] = []
        for number in range(total):
            own = problems[number * piece : (number + 1) * piece]
            name = f"{measurement.name}-{number:05d}-of-{total:05d}.jsonl"
            file = None if folder is None else epath.Path(folder) / name
            if file is not None and own and files.exists(file):
                rows = [row for _, _, row in json_lines.read(file)]
                if [row.get("id") for row in rows] != [problem.id for problem in own]:
                    raise ValueError(f"{file}: holds rows of other problems; remove it, or give another folder")
            else:
                rows = measurement.rows(own, bench, measured, (number, total))
                if file is not None:
                    files.publish(file, "".join(json.dumps(row) + "\n" for row in rows))
            found += rows
        measured[measurement.name] = found
    return measured
