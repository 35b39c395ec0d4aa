"""The problems of a run, in shards: who works on a shard reads that alone.

Problem i of the set lies in shard i % shards, at place i // shards.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from rstar_jax.files import rows
from rstar_jax.problems.problem import Problem

FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "answer": tfds.features.Sequence(tfds.features.Text()),
    "source": tfds.features.Text(),
    "level": tfds.features.Text(),
    "solution": tfds.features.Text(),
}


def write_problems(folder: epath.PathLike, problems: Sequence[Problem], shards: int) -> None:
    """Writes a set of problems, readable by TFDS as well. Raises OSError where the disk is full."""
    for shard in range(shards):
        rows.write_shard(folder, shard, shards, map(_row, problems[shard::shards]), FEATURES)
    rows.finish(folder, FEATURES, {"train": shards})


class StoredProblems:
    """A set that `write_problems` wrote, a source of problems as `sources` has them.

    Raises FileNotFoundError where there is none.
    """

    def __init__(self, folder: epath.PathLike):
        self.folder = epath.Path(folder)
        with rows.Rows(self.folder) as found:
            self.sizes = found.sizes

    def __len__(self) -> int:
        return sum(self.sizes)

    def shard(self, shard: int) -> list[Problem]:
        """The problems of one shard, in order."""
        start = sum(self.sizes[:shard])
        with rows.Rows(self.folder, transform=_problem) as found:
            return found.__getitems__(range(start, start + self.sizes[shard]))

    def read(self, *, blind: bool = False) -> list[Problem]:
        """As `sources.Source.read`: in the order in which they were given."""
        with rows.Rows(self.folder, transform=_problem) as found:
            every, ends = list(found), list(itertools.accumulate(self.sizes, initial=0))
        shards = [every[start:end] for start, end in itertools.pairwise(ends)]
        problems = [own[place] for place in range(max(self.sizes, default=0)) for own in shards if place < len(own)]
        return [problem.blind() for problem in problems] if blind else problems


def _row(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answers,
        "source": problem.source or "",
        "level": problem.level or "",
        "solution": problem.solution,
    }


def _problem(row: dict[str, Any]) -> Problem:
    return Problem(
        id=row["id"],
        question=row["question"],
        answers=tuple(row["answer"]),
        source=row["source"] or None,
        level=row["level"] or None,
        solution=row["solution"],
    )
