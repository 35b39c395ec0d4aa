"""JSONL files of a user: rows to train on."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from rstar_jax import json_lines


def read_rows(path: epath.PathLike, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Reads objects that have text under each of `fields`.

    Raises FileNotFoundError, or ValueError naming file and line and what was expected there.
    """
    rows = []
    for _, where, row in json_lines.read(path):
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
            raise ValueError(f"{where}: expected an object with the texts {', '.join(fields)}")
        rows.append(row)
    return rows
