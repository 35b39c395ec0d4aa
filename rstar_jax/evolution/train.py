"""The base of a run, and the trainings of its rounds."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
from etils import epath

from rstar_jax import files, models
from rstar_jax.evolution import data, progress
from rstar_jax.evolution.config import Checkpoint
from rstar_jax.evolution.run import EXAMPLES, Run
from rstar_jax.evolution.select import policy_data, preference_data
from rstar_jax.files import rows
from rstar_jax.models import DecoderConfig, Policy, Preference, lora
from rstar_jax.models.parameters import is_adapted, is_trained
from rstar_jax.training import ProgramConfig, TrainingConfig, losses, trainer
from rstar_jax.training.batches import Batch
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

CONTROL = "control"

Model = TypeVar("Model", Policy, Preference)


def make_base(run: Run) -> None:
    """The base of all rounds: a checkpoint that knows the step markers, or a tokenizer and a policy from examples."""
    base = run.config.base
    if isinstance(base, Checkpoint):
        loaded = models.load(models.find(base.source), run.training_mesh, base.dtype)
        if loaded.tokenizer is None:
            raise FileNotFoundError(f"{base.source}: expected a tokenizer.json there")
        models.save(models.with_markers(loaded), run.folder.round(0) / "policy")
        return
    examples = run.problems(EXAMPLES).read()
    corpus = [steps.prompt(problem.question) + problem.solution for problem in examples]
    corpus += [steps.prompt(problem.question) for source in base.questions for problem in source.read(blind=True)]
    tokenizer = Tokenizer.train(corpus, base.model.vocabulary_size)
    start = models.fresh(base.model, run.training_mesh, tokenizer, run.config.seed)
    config = base.training.on(len(examples))
    batch_at = data.batches_of(*_examples(run, config, tokenizer), config)
    _keep(run, 0, "policy", _train(run, 0, "policy", start, batch_at, config))


def train_policy(run: Run, number: int) -> None:
    """From the base, on the trajectories of this round, or of all so far, and on some worked examples."""
    settings, base = run.round(number), run.policy(0, mesh=run.training_mesh)
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
        batch_at = data.batches_of([own, *sources], shares, config)
        trained = _train(run, number, "policy", base, batch_at, config)
    _keep(run, number, "policy", trained)


def train_ppm(run: Run, number: int) -> None:
    """From this round's policy, on the pairs of this round, or of all so far."""
    config = run.round(number).ppm
    policy = run.policy(number, mesh=run.training_mesh)
    ppm = models.preference_from_policy(policy, run.config.value_scale)
    with _data_sets(run, number, preference_data) as sets:
        examples = data.preference_examples(sets, ppm.tokenizer, config, counted=True)
        run.folder.add(round=number, name="ppm_left_out", value=examples.left_out, split="train")
        if examples:
            config = config.on(int(examples.rows.sum()))
            ppm = _train(run, number, "ppm", ppm, data.batches_of([examples], [1.0], config), config)
        else:
            progress.say(f"round {number}: no preference pairs, so the PPM prefers nothing")
    _keep(run, number, "ppm", ppm)


def train_control(run: Run) -> None:
    """What equal steps on the worked examples alone would have given."""
    config, base = run.config.rounds[-1].policy, run.policy(0, mesh=run.training_mesh)
    config = config.on(len(run.problems(EXAMPLES)))
    batch_at = data.batches_of(*_examples(run, config, base.tokenizer), config)
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
    *,
    loss: Callable | None = None,
    held_out: Sequence[Batch] = (),
    on_step: Callable[[int, trainer.Metrics, trainer.Metrics], None] = lambda step, metrics, speed: None,
    adapters: epath.PathLike | None = None,
    base: str = "",
) -> tuple[Model, trainer.History]:
    """One training with its bar: the model, its adapters merged, and the metrics of each step.

    The model that it begins with is used up. What comes is in the dtype that it had, however it was trained.
    checkpoints, held_out, on_step: as of `trainer.train`. loss: of `losses`; by default the policy's or the PPM's.
    adapters: a folder for these alone, where the configuration trains some; base: the name of the model that they are
        for, as the folder says it.
    """
    if loss is None:
        loss = losses.preference_loss if isinstance(start, Preference) else losses.policy_loss
    if config.lora is not None:
        start = lora.with_adapters(start, config.lora, config.seed)
    model = dataclasses.replace(start.config, dtype=config.dtype or start.config.dtype, parameter_dtype="float32")
    dtypes = jax.tree.map(lambda x: x.dtype, start.parameters)
    with progress.bar(title, config.steps, "steps") as advance_to:

        def told(step: int, metrics: trainer.Metrics, speed: trainer.Metrics) -> None:
            advance_to(step + 1, progress.numbers(metrics | speed))
            on_step(step, metrics, speed)

        parameters, history = trainer.train(
            _loss(loss, model, config),
            start.parameters,
            batch_at,
            config,
            start.mesh,
            checkpoints=checkpoints,
            held_out=held_out,
            on_step=told,
            model=model,
            trained=is_trained if config.lora is None else is_adapted,
            give_away=True,
        )
    parameters = jax.tree.map(lambda x, dtype: x.astype(dtype), parameters, dtypes)
    trained = dataclasses.replace(start, parameters=parameters)
    if config.lora is None:
        return trained, history
    if adapters is not None:
        lora.save(trained, adapters, base)
    return lora.merged(trained), history


def _loss(loss: Callable, model: DecoderConfig, config: TrainingConfig) -> trainer.LossFunction:
    """One object a model and program, so that a train step is compiled once."""
    return _bound(loss, model, dataclasses.replace(config.program, microbatch=None))


@functools.cache
def _bound(loss: Callable, model: DecoderConfig, program: ProgramConfig) -> trainer.LossFunction:
    return functools.partial(loss, model, program)


def _train(run: Run, number: int, name: str, start: Model, batch_at: data.BatchAt, config: TrainingConfig) -> Model:
    """One training of a round: its losses in the numbers, and checkpoints from which it goes on if it is killed."""
    title = f"round {number}: train {name}"
    folder = run.folder.round(number)
    trained, history = fit(
        start,
        batch_at,
        config,
        title,
        _checkpoints(run, number, name),
        adapters=folder / f"{name}_adapters",
        base=str(run.folder.round(0) / "policy" if isinstance(start, Policy) else folder / "policy"),
    )
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
