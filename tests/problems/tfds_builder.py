"""A data set as TFDS itself makes one, of procedural problems: splits `bootstrap`, `round_1` and `heldout`."""

import contextlib
import io
import logging

import tensorflow_datasets as tfds

from rstar_jax.problems.procedural import ProceduralProblems

HELDOUT = ProceduralProblems(split="heldout", counts={"chain_sum": (1,) * 4}, seed=3)
ROUND = ProceduralProblems(split="round_1", counts={"leg_counting": (2, 3, 4, 2)}, seed=3, avoid=HELDOUT)
EXAMPLES = ProceduralProblems(
    split="bootstrap", counts={"leg_counting": (3, 2, 1, 1)}, seed=3, worked=True, avoid=ROUND
)


class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The builder."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        names = ("id", "question", "answer", "level", "source", "worked_example")
        features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in names})
        return tfds.core.DatasetInfo(builder=self, description="Procedural problems.", features=features)

    def _split_generators(self, download_manager):
        sets = {"heldout": HELDOUT, "round_1": ROUND, "bootstrap": EXAMPLES}
        return {split: self._generate_examples(source.read()) for split, source in sets.items()}

    def _generate_examples(self, problems):
        for own in problems:
            fields = {name: getattr(own, name) for name in ("id", "question", "level", "source")}
            yield own.id, {**fields, "answer": own.answers[0], "worked_example": own.solution}


def prepare(folder) -> None:
    """Builds the data set under `folder`, in its array_record form."""
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        Toy(data_dir=str(folder)).download_and_prepare(file_format="array_record")
