"""Problems as TFDS data sets in their array_record form, written and read without TensorFlow."""

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from rstar_jax.problems import procedural
from rstar_jax.problems.fields import Fields, collect
from rstar_jax.problems.problem import Problem

PROBLEM_FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "answer": tfds.features.Text(),
    "level": tfds.features.Text(),
    "source": tfds.features.Text(),
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
                    "answer": problem.answers[0],
                    "level": problem.level,
                    "source": problem.source,
                    "worked_example": example,
                },
            )


def _prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS warns of every configuration that it has not seen
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself on standard output
        builder.download_and_prepare(file_format="array_record")


def prepare_procedural(folder: epath.PathLike, problems: procedural.ProceduralProblems, seed: int) -> None:
    """Generates `ProceduralMath` under `folder`, unless it is there."""
    _prepare(ProceduralMath(data_dir=str(folder), config=ProceduralMathConfig(problems, seed)))


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
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value
