"""The modes that train one model: any model folder, on rows of a run or of a file, in one process or in many.

OUTPUT/             the model, when all is done
OUTPUT/training/    checkpoints, from which the same command goes on
OUTPUT/metrics.jsonl, OUTPUT/tensorboard/
OUTPUT/adapters/    these alone, where the configuration trains some
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from rstar_jax import configuration, files, models
from rstar_jax.decoding import keep_programs
from rstar_jax.evolution import data as training_data
from rstar_jax.evolution import train
from rstar_jax.evolution.commands import of_run
from rstar_jax.evolution.config import TrainingRun
from rstar_jax.evolution.data import Examples, Subset
from rstar_jax.evolution.run_folder import RunFolder
from rstar_jax.files.rows import Rows
from rstar_jax.models import Model
from rstar_jax.partitioning import make_mesh, processes
from rstar_jax.problems import jsonl
from rstar_jax.search import read_trees, valued_steps
from rstar_jax.training import TrainingConfig, losses, trainer
from rstar_jax.training.metrics import MetricsWriter

Row = dict[str, Any]


def train_policy(*, config: TrainingRun, **flags: str | None) -> None:
    """Trains a policy (by default from the base of the run) on {"question", "response"} rows.

    flags, of all modes here: see `_Job`. data: by default the policy's data of the run's last round.
    """
    job = _Job("policy", config, config.policy, **flags)
    start = job.load(0)
    with job.rows("policy_data", ("question", "response")) as rows:
        job.run(start, rows, training_data.policy_examples, losses.policy_loss)


def train_ppm(*, config: TrainingRun, **flags: str | None) -> None:
    """Trains a PPM from a policy (by default the run's last) on {"question", "prefix", "chosen", "rejected"} rows.

    data: by default the preference data of the run's last round.
    """
    job = _Job("ppm", config, config.ppm, **flags)
    start = job.load_preference()
    with job.rows("preference_data", ("question", "prefix", "chosen", "rejected")) as rows:
        job.run(start, rows, training_data.preference_examples, losses.preference_loss)


def train_orm(*, config: TrainingRun, **flags: str | None) -> None:
    """Trains an ORM from a policy on pairs of whole solutions: {"question", "chosen", "rejected"} rows.

    data: by default as of `train_ppm`; of preference data the pairs of trajectories are taken.
    """
    job = _Job("orm", config, config.ppm, **flags)
    start = job.load_preference()
    with job.rows("preference_data", ("question", "chosen", "rejected")) as rows:
        whole = [{"prefix": "", **row} for row in rows if row.get("kind", "trajectory") == "trajectory"]
        job.run(start, whole, training_data.preference_examples, losses.preference_loss)


def train_pqm(*, config: TrainingRun, **flags: str | None) -> None:
    """Trains a PQM from a policy, which regresses on Q: {"question", "steps": [{"text", "value"}, ...]} rows.

    data: a JSONL file; by default the best correct and the worst wrong trajectories of each tree of the run's last
    round.
    """
    job = _Job("pqm", config, config.ppm, **flags)
    start = job.load_preference()
    rows = _valued_rows(job.run_dir) if job.data is None else jsonl.read_rows(job.data, ("question", "steps"))
    job.run(start, rows, training_data.value_examples, losses.value_loss)


def _valued_rows(run_dir: str) -> list[Row]:
    """{"question", "steps": [{"text", "value"}, ...]} of the trees of the last round that has some."""
    folder = of_run(run_dir, "trees_1").parent
    return [
        {"question": tree.problem.question, "steps": [{"text": text, "value": value} for text, value in own]}
        for name in sorted(files.names(folder))
        if name.startswith("trees_")
        for tree in read_trees(folder / name)
        for own in valued_steps(tree)
    ]


class _Job:
    """One training, from the command line.

    run_dir: the run whose models and data are taken where none are named. policy: a model folder. data: a JSONL file or
    a data set folder. output: where the model is written. coordinator, process: of trainings in several processes
    (`processes.join`).
    """

    def __init__(
        self,
        kind: str,
        config: TrainingRun,
        settings: TrainingConfig | None,
        *,
        run_dir: str,
        policy: str | None,
        data: str | None,
        output: str,
        coordinator: str | None,
        process: str | None,
    ):
        if settings is None:
            field = "policy" if kind == "policy" else "ppm"
            raise ValueError(f"TrainingRun.{field}: expected a TrainingConfig, such as gin/training has")
        processes.join(coordinator, process)
        keep_programs()
        self.run_dir, self.data = run_dir, data
        self._kind, self._config, self._settings = kind, config, settings
        self._policy, self._folder = policy, epath.Path(output)
        self._mesh = make_mesh(config.mesh, every=True)

    def load(self, number: int | None = None) -> models.Policy:
        """The model to begin with: the one that was named, or that of a round of the run, by default the last.

        Raises: FileExistsError for an output that holds a model. ValueError for a policy that knows no markers.
        """
        if models.is_model(self._folder):
            raise FileExistsError(f"--output={self._folder}: holds a model; expected a new folder")
        self._policy = str(self._policy or of_run(self.run_dir, "policy", number))
        found = models.load(self._policy, self._mesh, self._config.dtype)
        if found.tokenizer is None or not found.tokenizer.knows_markers:
            raise ValueError(
                f"--policy={self._policy}: its tokenizer does not know the step markers; `rstar import` adds them"
            )
        return found

    def load_preference(self) -> models.Preference:
        """The same, with a head of zeros."""
        return models.preference_from_policy(self.load(), self._config.value_scale)

    @contextlib.contextmanager
    def rows(self, name: str, fields: tuple[str, ...]) -> Iterator[Sequence[Row]]:
        """Training rows: those of `data`, or the data set of this name of the run's last round that has one."""
        source = self.data or of_run(self.run_dir, name)
        if not epath.Path(source).is_dir():
            yield jsonl.read_rows(source, fields)
            return
        with Rows(source) as found:
            yield found

    def run(self, start: Model, rows: Sequence[Row], make: Callable, loss: Callable) -> None:
        """Trains and writes, or goes on; prints the folder of the model."""
        settings = self._settings
        examples = make([rows], start.tokenizer, settings)
        if processes.is_first():
            self._begin()
        learned, kept = _apart(examples, self._config.held_out, settings.seed)
        settings = settings.on(int(learned.rows.sum()))
        with _Metrics(self._folder) as metrics:
            trained, history = train.fit(
                start,
                training_data.batches_of([learned], [1.0], settings),
                settings,
                "train",
                self._folder / "training",
                loss=loss,
                held_out=training_data.each_once(kept, settings),
                on_step=lambda step, values, speed: metrics.add(step, values | speed),
                adapters=self._folder / "adapters",
                base=self._policy,
            )
            metrics.complete(history)
        models.save(trained, self._folder)
        if processes.is_first():
            for name in ("training", "training_best"):
                files.remove_tree(self._folder / name)
            print(self._folder)

    def _begin(self) -> None:
        """Makes the output this training's, whose model and data are known by now; refuses that of another."""
        config = self._config
        settings = {
            "kind": self._kind,
            "policy": self._policy,
            "data": self.data or self.run_dir,
            "training": self._settings.decisive,
            "value_scale": config.value_scale,
            "dtype": config.dtype,
            "held_out": config.held_out,
        }
        told = "".join(configuration.operative(value, name) for name, value in settings.items())
        RunFolder(self._folder).check_configuration(told, flag="--output")


class _Metrics:
    """The metrics of a training, which the first process writes."""

    def __init__(self, folder: epath.Path):
        self._folder, self._writer = folder, None

    def __enter__(self) -> "_Metrics":
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Those of a step; what a process that was cut off wrote of it and of later ones is written anew."""
        if processes.is_first():
            self._writer = self._writer or MetricsWriter(self._folder, step)
            self._writer.add(step, values)

    def complete(self, history: trainer.History) -> None:
        """Those of all steps, once they are done."""
        if self._writer is not None:
            self._writer.complete(history)


def _apart(examples: Examples, share: float, seed: int) -> tuple[Examples | Subset, Subset]:
    """(examples to learn from, held-out ones), drawn by the seed."""
    count = round(share * len(examples))
    if not count:
        return examples, Subset(examples, [])
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    return Subset(examples, sorted(order[count:])), Subset(examples, sorted(order[:count]))
