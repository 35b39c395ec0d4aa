"""Data sets on disk: TFDS in its array_record form, written and read without TensorFlow.

`ProceduralMath` is an ordinary TFDS builder. What a round produces (trajectories, preference pairs) is written by
`write`, since its rows come from a search and not from a download.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from rstar_jax.problems import procedural
from rstar_jax.problems.problem import Problem

PROBLEM_FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "answer": tfds.features.Text(),
    "level": np.int32,
    "family": tfds.features.Text(),
    "worked_example": tfds.features.Text(),  # empty where problems are given with their final answer alone
}


class ProceduralMathConfig(tfds.core.BuilderConfig):
    """`ProceduralProblems` and a seed as TFDS wants them."""

    def __init__(self, problems: procedural.ProceduralProblems, seed: int):
        super().__init__(name="default", version="1.0.0", description="procedural problems by level")
        self.problems, self.seed = problems, seed


class ProceduralMath(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Procedural problems: splits `bootstrap` (with worked examples), `round_1`..., `heldout`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: list[ProceduralMathConfig] = []

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Procedural problems with final answers.",
            features=tfds.features.FeaturesDict(PROBLEM_FEATURES),
        )

    def _split_generators(self, download_manager):
        del download_manager
        wanted = self.builder_config.problems
        counts = {"heldout": wanted.heldout, "bootstrap": wanted.bootstrap}
        counts |= {f"round_{i}": by_family for i, by_family in enumerate(wanted.rounds, start=1)}
        seen: set[str] = set()
        splits = {}
        for split, by_family in counts.items():  # heldout first: nobody else gets its questions
            splits[split] = list(self._problems(split, by_family, seen))
        return {split: self._generate_examples(problems, split) for split, problems in splits.items()}

    def _problems(self, split: str, by_family: Mapping[str, Sequence[int]], seen: set[str]) -> Iterable[Problem]:
        for family, counts in by_family.items():
            for level, count in enumerate(counts, start=1):
                yield from procedural.generate(
                    family, level, count, split=split, seed=self.builder_config.seed, avoid=seen
                )

    def _generate_examples(self, problems: Iterable[Problem], split: str):
        for problem in problems:
            example = procedural.worked_example(problem) if split == "bootstrap" else ""
            yield (
                problem.id,
                {
                    "id": problem.id,
                    "question": problem.question,
                    "answer": problem.answer,
                    "level": problem.level,
                    "family": problem.family,
                    "worked_example": example,
                },
            )


class _Rows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set whose rows are at hand."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, rows: Mapping[str, Sequence[dict]], features: dict, **kwargs):
        self._rows, self._row_features = rows, features
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description="Written by rstar_jax.", features=tfds.features.FeaturesDict(self._row_features)
        )

    def _split_generators(self, download_manager):
        del download_manager
        return {split: self._generate_examples(rows) for split, rows in self._rows.items()}

    def _generate_examples(self, rows: Sequence[dict]):
        yield from enumerate(rows)


def _prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns of every configuration that it has not seen
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself on standard output
        builder.download_and_prepare(file_format="array_record")


def write(folder: epath.PathLike, rows: Mapping[str, Sequence[dict]], features: dict) -> None:
    """Writes the splits of `rows` as a TFDS data set under `folder`. TFDS renames into place: never half-written."""
    _prepare(_Rows(rows=rows, features=features, data_dir=str(folder)))


def prepare_procedural(folder: epath.PathLike, problems: procedural.ProceduralProblems, seed: int) -> None:
    """Generates `ProceduralMath` under `folder`, unless it is there."""
    _prepare(ProceduralMath(data_dir=str(folder), config=ProceduralMathConfig(problems, seed)))


def read(folder: epath.PathLike, split: str) -> list[dict]:
    """The rows of one split of the data set under `folder`, in order; texts as str."""
    # TFDS lays out name/version or name/config/version under its folder.
    found = [*epath.Path(folder).glob("*/*/dataset_info.json"), *epath.Path(folder).glob("*/*/*/dataset_info.json")]
    versions = sorted(path.parent for path in found)
    if not versions:
        raise FileNotFoundError(f"{folder}: expected a TFDS data set there")
    builder = tfds.builder_from_directory(str(versions[-1]))
    if split not in builder.info.splits:
        raise ValueError(f"{folder}: has no split {split!r}, only {', '.join(builder.info.splits)}")
    return [
        {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
        for row in builder.as_data_source(split)
    ]


def read_problems(folder: epath.PathLike, split: str) -> list[Problem]:
    """The problems of one split, by id, so that their order does not depend on how TFDS shuffled its shards."""
    fields = ("id", "question", "answer", "level", "family")
    rows = sorted(read(folder, split), key=lambda row: row["id"])
    return [Problem(**{name: row[name] for name in fields}) for row in rows]
