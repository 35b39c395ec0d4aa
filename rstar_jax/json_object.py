"""A JSON object from a file, or one line that names the file."""

import json
from typing import Any

from etils import epath

from rstar_jax import files


def read(path: epath.PathLike) -> dict[str, Any]:
    """What a file holds. Raises FileNotFoundError, or ValueError that names it, where it is no JSON object."""
    try:
        fields = json.loads(files.read(path))
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: expected JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected a JSON object, got {json.dumps(fields)[:80]}")
    return fields
