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


def train_policy(
    *,
    config: TrainingRun,
    run_dir: str,
    policy: str | None,
    data: str | None,
    output: str,
    coordinator: str | None,
    process: str | None,
) -> None:
    """Trains `policy` (by default the base of the run) on {"question", "response"} rows; writes a model to `output`.

    data: a JSONL file or a data set folder; by default the policy's data of the run's last round.
    coordinator, process: of trainings in several processes (`processes.join`).
    """
    settings = _settings(config.policy, "policy")
    job = _Job(config, settings, output, coordinator, process)
    start = job.load(policy or of_run(run_dir, "policy", 0))
    with _rows(data or of_run(run_dir, "policy_data"), ("question", "response")) as rows:
        job.run(start, rows, training_data.policy_examples, losses.policy_loss)


def train_ppm(
    *,
    config: TrainingRun,
    run_dir: str,
    policy: str | None,
    data: str | None,
    output: str,
    coordinator: str | None,
    process: str | None,
) -> None:
    """Trains a PPM from `policy` (by default the run's last) on {"question", "prefix", "chosen", "rejected"} rows.

    data: as of `train_policy`, the preference data. Writes a model to `output`.
    """
    job = _Job(config, _settings(config.ppm, "ppm"), output, coordinator, process)
    start = job.load_preference(policy or of_run(run_dir, "policy"))
    with _rows(data or of_run(run_dir, "preference_data"), ("question", "prefix", "chosen", "rejected")) as rows:
        job.run(start, rows, training_data.preference_examples, losses.preference_loss)


def train_orm(
    *,
    config: TrainingRun,
    run_dir: str,
    policy: str | None,
    data: str | None,
    output: str,
    coordinator: str | None,
    process: str | None,
) -> None:
    """Trains an ORM from `policy` on pairs of whole solutions: {"question", "chosen", "rejected"} rows.

    data: a JSONL file; or preference data, by default those of the run's last round, of which the pairs of
    trajectories are taken. Writes a model to `output`.
    """
    job = _Job(config, _settings(config.ppm, "ppm"), output, coordinator, process)
    start = job.load_preference(policy or of_run(run_dir, "policy"))
    with _rows(data or of_run(run_dir, "preference_data"), ("question", "chosen", "rejected")) as rows:
        whole = [{"prefix": "", **row} for row in rows if row.get("kind", "trajectory") == "trajectory"]
        job.run(start, whole, training_data.preference_examples, losses.preference_loss)


def train_pqm(
    *,
    config: TrainingRun,
    run_dir: str,
    policy: str | None,
    data: str | None,
    output: str,
    coordinator: str | None,
    process: str | None,
) -> None:
    """Trains a PQM from `policy`, which regresses on Q: {"question", "steps": [{"text", "value"}, ...]} rows.

    data: a JSONL file; by default the best correct and the worst wrong trajectories of each tree of the run's last
    round. Writes a model to `output`.
    """
    job = _Job(config, _settings(config.ppm, "ppm"), output, coordinator, process)
    start = job.load_preference(policy or of_run(run_dir, "policy"))
    rows = _valued_rows(run_dir) if data is None else jsonl.read_rows(data, ("question", "steps"))
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
    """One training, from the command line."""

    def __init__(
        self, config: TrainingRun, settings: TrainingConfig, output: str, coordinator: str | None, process: str | None
    ):
        processes.join(coordinator, process)
        keep_programs()
        self._config, self._settings, self._folder = config, settings, epath.Path(output)
        self._mesh = make_mesh(config.mesh, every=True)
        self._from = ""

    def load(self, source: str | epath.Path) -> models.Policy:
        """The model to begin with."""
        self._from = str(source)
        found = models.load(source, self._mesh, self._config.dtype)
        if found.tokenizer is None or not found.tokenizer.knows_markers:
            raise ValueError(
                f"--policy={source}: its tokenizer does not know the step markers; `rstar import` adds them"
            )
        return found

    def load_preference(self, source: str | epath.Path) -> models.Preference:
        """The same, with a head of zeros."""
        return models.preference_from_policy(self.load(source), self._config.value_scale)

    def run(self, start: Model, rows: Sequence[Row], make: Callable, loss: Callable) -> None:
        """Trains and writes, or goes on; prints the folder of the model."""
        if processes.is_first():
            self._begin()
        settings = self._settings
        examples = make([rows], start.tokenizer, settings)
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
                base=self._from,
            )
            metrics.complete(history)
        models.save(trained, self._folder)
        if processes.is_first():
            for name in ("training", "training_best"):
                files.remove_tree(self._folder / name)
            print(self._folder)

    def _begin(self) -> None:
        """Refuses a folder that holds a model, or that other settings have begun."""
        if models.is_model(self._folder):
            raise FileExistsError(f"--output={self._folder}: holds a model; expected a new folder")
        told = f"# trained from {self._from}\n" + configuration.operative(self._settings.decisive, "training")
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


def _settings(settings: TrainingConfig | None, name: str) -> TrainingConfig:
    if settings is None:
        raise ValueError(f"TrainingRun.{name}: expected a TrainingConfig, such as gin/training has")
    return settings


def _apart(examples: Examples, share: float, seed: int) -> tuple[Examples | Subset, Subset]:
    """(examples to learn from, held-out ones), drawn by the seed."""
    count = round(share * len(examples))
    if not count:
        return examples, Subset(examples, [])
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    return Subset(examples, sorted(order[count:])), Subset(examples, sorted(order[:count]))


@contextlib.contextmanager
def _rows(source: str | epath.Path, fields: tuple[str, ...]) -> Iterator[Sequence[Row]]:
    """Training rows from a JSONL file or a data set folder."""
    if not epath.Path(source).is_dir():
        yield jsonl.read_rows(str(source), fields)
        return
    with Rows(source) as found:
        yield found
