"""The training loop: one jitted step, checkpoints from which a killed run goes on and ends the same."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh

from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.parameters import Parameters, is_trained, merge, split
from rstar_jax.partitioning import place
from rstar_jax.training import preemption
from rstar_jax.training.batches import Batch, with_rows
from rstar_jax.training.checkpoints import History, Saver
from rstar_jax.training.config import TrainingConfig
from rstar_jax.training.optimizer import learning_rate
from rstar_jax.training.step import LEAST, Abstract, LossFunction, evaluation, programs
from rstar_jax.training.throughput import Meter

Metrics = dict[str, float]
_HELD_OUT = "held_out_"  # before the names of metrics


def train(
    loss_function: LossFunction,
    parameters: Parameters,
    batch_at: Callable[[int], Batch],
    config: TrainingConfig,
    mesh: Mesh,
    *,
    checkpoints: epath.PathLike | None = None,
    held_out: Sequence[Batch] = (),
    on_step: Callable[[int, Metrics, Metrics], None] = lambda step, metrics, speed: None,
    model: DecoderConfig | None = None,
    trained: Callable[[tuple[str, ...]], bool] = is_trained,
    give_away: bool = False,
) -> tuple[Parameters, History]:
    """Trains `parameters` for `config.steps` steps; returns the new ones, and the metrics of every step.

    batch_at: the batch of a step; a pure function of the step, which is what makes resuming exact. Every process makes
        the whole batch, and gives its devices their rows; empty rows are added where the mesh wants more.
    checkpoints: folder for parameters, optimizer state and history; a run that finds one there goes on from it.
    held_out: batches of which the metrics are measured after every `config.evaluate_every` steps, and after the last;
        they are among those of their step as "held_out_loss", ...
    on_step: called with step, metrics and speeds (`Meter`), one step late so that the device is never waited for.
    model: of which the speeds count the operations. trained: whether the parameter at a path is learned; it becomes
        fp32. The others stay as they are. give_away: the caller needs `parameters` no more.

    Raises: ValueError for a microbatch that the mesh does not divide, for nothing to tell the best by, and where loss
    or gradients are not finite: no checkpoint is written after such a step. `preemption.Preempted` after the checkpoint
    of the step at which SIGTERM came; at the last step the training is over.
    """
    _check(config, mesh)
    if config.keep == "best" and (not held_out or checkpoints is None):
        raise ValueError("TrainingConfig.keep='best': expected held-out examples, and a folder for checkpoints")
    with contextlib.ExitStack() as opened:
        opened.enter_context(jax.set_mesh(mesh))
        preempted = opened.enter_context(preemption.watch())
        parameters, frozen = split(parameters, trained)
        parameters = jax.tree.map(lambda x: x.astype(jnp.float32), parameters)  # the same array if it is fp32 already
        abstract = Abstract(parameters)
        abstract_state, init, update = programs(loss_function, config, mesh, abstract)
        saver = opened.enter_context(Saver(checkpoints)) if checkpoints is not None else None
        history: History = []
        if saver is not None and saver.latest_step is not None:
            del parameters
            trees, history = saver.restore({"parameters": abstract.tree, "optimizer": abstract_state})
            parameters, state = trees["parameters"], trees["optimizer"]
        else:
            if not give_away:
                parameters = jax.tree.map(jnp.copy, parameters)  # the step donates its arguments
            state = init(parameters)
        best = opened.enter_context(Saver(f"{checkpoints}_best")) if config.keep == "best" else None
        meter, pending = Meter(model), None

        def settle() -> None:
            if pending is not None:
                metrics, batch, step = *pending, len(history)
                history.append({name: float(value) for name, value in metrics.items()})
                if held_out and _is_measured(step + 1, config):
                    history[-1] |= _measure(loss_function, merge(parameters, frozen), held_out, config, mesh)
                    if best is not None and _is_best(history) and best.latest_step != step + 1:
                        best.save(step + 1, {"parameters": parameters}, [])
                _check_finite(step, history[-1])
                on_step(step, history[-1], meter.measure(batch))

        for step, batch in _ahead(batch_at, range(len(history), config.steps), meter):
            cut, parts = _in_parts(batch, config, mesh)
            placed = place(mesh, cut, None, "batch")
            parameters, state, metrics = update(parameters, state, frozen, placed, parts, learning_rate(config, step))
            settle()
            pending = metrics, batch
            ends = preempted(step) and step + 1 < config.steps
            if held_out and _is_measured(step + 1, config):  # now, as long as there are this step's parameters
                settle()
                pending = None
            if saver is not None and step + 1 < config.steps and (ends or (step + 1) % config.checkpoint_every == 0):
                settle()
                pending = None
                saver.save(step + 1, {"parameters": parameters, "optimizer": state}, history)
            if ends:
                raise preemption.Preempted(f"training: ended by a signal after step {step}")
        settle()
        if best is not None:
            parameters = best.restore({"parameters": abstract.tree})[0]["parameters"]
    return merge(parameters, frozen), history


def _check(config: TrainingConfig, mesh: Mesh) -> None:
    shards, part = _shards(mesh), config.program.microbatch
    if part is not None and part % shards:
        raise ValueError(
            f"ProgramConfig.microbatch ({part}): expected a multiple of data * fsdp of the mesh ({shards})"
        )
    if config.optimizer == "muon" and mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
        raise ValueError(
            "TrainingConfig.optimizer='muon' orthogonalises whole matrices: expected fsdp and tensor of the mesh to be "
            "1; 'adamw' trains sharded ones"
        )


def _shards(mesh: Mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _in_parts(batch: Batch, config: TrainingConfig, mesh: Mesh) -> tuple[Batch, int]:
    """Arrays [A, b, ...] of arrays [B, ...], and how many of the A parts hold something.

    A is a power of two, so that batches that take more parts or fewer share a program; so do, where a batch is one
    part, those of about as many rows.
    """
    rows = len(batch["tokens"])
    about = 1 << max((rows - 1).bit_length() - 3, 0)  # at most an eighth more: four programs at most from 16 to 32 rows
    batch = with_rows(batch, config.program.microbatch or math.lcm(_shards(mesh), about))
    part = config.program.microbatch or len(batch["tokens"])
    parts = len(batch["tokens"]) // part
    batch = with_rows(batch, part << (parts - 1).bit_length())
    return {name: value.reshape(-1, part, *value.shape[1:]) for name, value in batch.items()}, parts


def _ahead(batch_at: Callable[[int], Batch], steps: range, meter: Meter) -> Iterator[tuple[int, Batch]]:
    """(step, its batch), made while the step before is computed."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(batch_at, steps[0]) if steps else None
        for step in steps:
            start = time.perf_counter()
            batch = future.result()
            meter.waited += time.perf_counter() - start
            if step + 1 in steps:
                future = thread.submit(batch_at, step + 1)
            yield step, batch


def _is_measured(steps: int, config: TrainingConfig) -> bool:
    return steps == config.steps or (config.evaluate_every is not None and steps % config.evaluate_every == 0)


def _is_best(history: History) -> bool:
    """Whether the last measurement on held-out examples has the lowest loss so far."""
    losses = [row[_HELD_OUT + "loss"] for row in history if _HELD_OUT + "loss" in row]
    return losses[-1] <= min(losses)


def _measure(
    loss_function: LossFunction, parameters: Parameters, held_out: Sequence[Batch], config: TrainingConfig, mesh: Mesh
) -> Metrics:
    """The metrics of a loss over all held-out batches, without noise."""
    totals: dict[str, list[float]] = {}
    for batch in held_out:
        cut, parts = _in_parts({name: own for name, own in batch.items() if name != "noise"}, config, mesh)
        placed = place(mesh, cut, None, "batch")
        for part in range(parts):
            sums = evaluation(loss_function, mesh)(parameters, placed, part)
            for name, (total, count) in sums.items():
                own = totals.setdefault(name, [0.0, 0.0])
                own[0] += float(total)
                own[1] += float(count)
    return {f"{_HELD_OUT}{name}": total / max(count, LEAST) for name, (total, count) in totals.items()}


def _check_finite(step: int, metrics: Metrics) -> None:
    if not all(map(math.isfinite, metrics.values())):
        found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        raise ValueError(
            f"training, step {step}: {found}: expected finite numbers; try a lower TrainingConfig.learning_rate"
        )
