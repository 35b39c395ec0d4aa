"""The base of a run, and the trainings of its rounds."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from etils import epath

from rstar_jax import files, models
from rstar_jax.evolution import data, progress
from rstar_jax.evolution.config import Checkpoint
from rstar_jax.evolution.run import EXAMPLES, Run
from rstar_jax.evolution.select import policy_data, preference_data
from rstar_jax.evolution.world import policy_loss, preference_loss
from rstar_jax.files import rows
from rstar_jax.models import Policy, Preference
from rstar_jax.training import TrainingConfig, trainer
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

CONTROL = "control"

Model = TypeVar("Model", Policy, Preference)


def make_base(run: Run) -> None:
    """The base of all rounds: a checkpoint that knows the step markers, or a tokenizer and a policy from examples."""
    base = run.config.base
    if isinstance(base, Checkpoint):
        loaded = models.load(models.find(base.source), run.world.mesh, base.dtype)
        if loaded.tokenizer is None:
            raise FileNotFoundError(f"{base.source}: expected a tokenizer.json there")
        models.save(models.with_markers(loaded), run.folder.round(0) / "policy")
        return
    examples = run.problems(EXAMPLES).read()
    corpus = [steps.prompt(problem.question) + problem.solution for problem in examples]
    corpus += [steps.prompt(problem.question) for source in base.questions for problem in source.read(blind=True)]
    tokenizer = Tokenizer.train(corpus, base.model.vocabulary_size)
    start = models.fresh(base.model, run.world.mesh, tokenizer, run.config.seed)
    config = base.training.on(len(examples))
    batch_at = data.policy_batches(*_examples(run, config, tokenizer), config)
    _keep(run, 0, "policy", _train(run, 0, "policy", start, batch_at, config))


def train_policy(run: Run, number: int) -> None:
    """From the base, on the trajectories of this round, or of all so far, and on some worked examples."""
    settings, base = run.round(number), run.policy(0)
    config = settings.policy
    with _data_sets(run, number, policy_data) as sets:
        own = data.policy_examples(sets, base.tokenizer, config, counted=True)
        run.folder.add(round=number, name="policy_left_out", value=own.left_out, split="train")
        if not own and not settings.replay:
            raise ValueError(
                f"round {number}: no problem was solved, so there is nothing to train the policy on; expected more "
                f"problems, easier ones, or more candidates and rollouts"
            )
        if not own:
            progress.say(f"round {number}: no problem was solved, so the policy learns from the worked examples alone")
        replay = settings.replay if own else 1.0
        config = config.on(len(own), 1 - replay) if own else config.on(len(run.problems(EXAMPLES)))
        sources, shares = _examples(run, config, base.tokenizer) if replay else ([], [])
        shares = [1 - replay, *(replay * share for share in shares)]
        batch_at = data.policy_batches([own, *sources], shares, config)
        trained = _train(run, number, "policy", base, batch_at, config)
    _keep(run, number, "policy", trained)


def train_ppm(run: Run, number: int) -> None:
    """From this round's policy, on the pairs of this round, or of all so far."""
    config = run.round(number).ppm
    ppm = models.preference_from_policy(run.policy(number), run.config.value_scale)
    with _data_sets(run, number, preference_data) as sets:
        examples = data.preference_examples(sets, ppm.tokenizer, config, counted=True)
        run.folder.add(round=number, name="ppm_left_out", value=examples.left_out, split="train")
        if examples:
            config = config.on(len(examples))
            ppm = _train(run, number, "ppm", ppm, data.preference_batches(examples, config), config)
        else:
            progress.say(f"round {number}: no preference pairs, so the PPM prefers nothing")
    _keep(run, number, "ppm", ppm)


def train_control(run: Run) -> None:
    """What equal steps on the worked examples alone would have given."""
    config, base = run.config.rounds[-1].policy, run.policy(0)
    config = config.on(len(run.problems(EXAMPLES)))
    batch_at = data.policy_batches(*_examples(run, config, base.tokenizer), config)
    _keep(run, run.last, CONTROL, _train(run, run.last, CONTROL, base, batch_at, config))


@contextlib.contextmanager
def _data_sets(run: Run, number: int, of_round: Callable[[int], str]) -> Iterator[list[rows.Rows]]:
    """The rows that a round learns from, open."""
    first = number if run.round(number).learn_from == "round" else 1
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(rows.Rows(run.folder.path / of_round(own))) for own in range(first, number + 1)]


def _examples(run: Run, config: TrainingConfig, tokenizer: Tokenizer) -> tuple[list[Sequence], list[float]]:
    """The worked examples, those of level 1 and the tail of harder ones apart, and the shares of the two."""
    problems, sources = run.problems(EXAMPLES).read(), []
    for tail in (False, True):
        own = [problem for problem in problems if (problem.level != "1") == tail]
        worked = [{"question": problem.question, "response": problem.solution} for problem in own]
        sources.append(data.policy_examples([worked], tokenizer, config))
    share = run.config.base.tail_share
    return sources, [1 - share, share]


def fit(
    start: Model,
    batch_at: data.BatchAt,
    config: TrainingConfig,
    title: str,
    checkpoints: epath.PathLike | None = None,
) -> tuple[Model, trainer.History]:
    """One training with its bar: the model, and the metrics of each step. checkpoints: as of `trainer.train`."""
    loss = preference_loss(start.config) if isinstance(start, Preference) else policy_loss(start.config)
    with progress.bar(title, config.steps, "steps") as advance_to:
        parameters, history = trainer.train(
            loss,
            start.parameters,
            batch_at,
            config,
            start.mesh,
            checkpoints=checkpoints,
            on_step=lambda step, values: advance_to(step + 1, progress.numbers(values)),
        )
    return dataclasses.replace(start, parameters=parameters), history


def _train(run: Run, number: int, name: str, start: Model, batch_at: data.BatchAt, config: TrainingConfig) -> Model:
    """One training of a round: its losses in the numbers, and checkpoints from which it goes on if it is killed."""
    title = f"round {number}: train {name}"
    trained, history = fit(start, batch_at, config, title, _checkpoints(run, number, name))
    every = max(config.steps // 20, 1)
    for end in range(every, config.steps + 1, every):
        for key in history[0]:
            mean = sum(row[key] for row in history[end - every : end]) / every
            run.folder.add(round=number, name=f"{name}_{key}", value=mean, split="train", step=end)
    return trained


def _keep(run: Run, number: int, name: str, model: Model) -> None:
    """Writes a finished model; the checkpoints of its training are not needed any more."""
    models.save(model, run.folder.round(number) / name)
    files.remove_tree(_checkpoints(run, number, name))


def _checkpoints(run: Run, number: int, name: str) -> epath.Path:
    """Where a training keeps the checkpoints from which it goes on if it is killed."""
    return run.folder.round(number) / f"{name}_training"
