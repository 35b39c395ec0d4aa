"""Problems of TFDS data sets in their array_record form, read without TensorFlow."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from rstar_jax.problems.fields import Fields, collect
from rstar_jax.problems.problem import Problem


def read(folder: epath.PathLike, split: str) -> list[dict]:
    """The rows of one split of the data set under `folder`, in order; texts as str."""
    version = _version(folder)
    if version is None:
        raise FileNotFoundError(f"{folder}: expected a TFDS data set there")
    builder = tfds.builder_from_directory(str(version))
    if split not in builder.info.splits:
        raise ValueError(f"{folder}: has no split {split!r}, only {', '.join(builder.info.splits)}")
    return [{name: _plain(value) for name, value in row.items()} for row in builder.as_data_source(split)]


def splits(folder: epath.PathLike) -> list[str]:
    """The splits of the data set under `folder`; none where there is no data set."""
    version = _version(folder)
    return [] if version is None else list(tfds.builder_from_directory(str(version)).info.splits)


def read_problems(
    folder: epath.PathLike, split: str, fields: Fields | None = None, name: str | None = None
) -> list[Problem]:
    """The problems of one split, by id, so that their order does not depend on how TFDS shuffled its shards.

    fields, name: as of `sources.TfdsProblems`.
    """
    rows = ((number, f"{folder}, {split}, row {number}", row) for number, row in enumerate(read(folder, split), 1))
    found = collect((fields or Fields()).read(rows, name=name), f"{folder}, {split}", prefix=f"{name}/" if name else "")
    return sorted(found, key=lambda problem: problem.id)


def _version(folder: epath.PathLike) -> epath.Path | None:
    """The newest version of the data set under `folder`: TFDS lays out name/version or name/config/version there.

    One that was cut off while it was written is called "incomplete" and does not count.
    """
    path = epath.Path(folder)
    found = [own for depth in ("", "*/", "*/*/", "*/*/*/") for own in path.glob(f"{depth}dataset_info.json")]
    return max((own.parent for own in found if "incomplete" not in own.parent.name), default=None)


def _plain(value: Any) -> Any:
    """A value of a row as Python has it: texts as str, numbers and lists of either without numpy."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value
