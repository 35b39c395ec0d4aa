"""The training loop: one jitted step, checkpoints from which a killed run goes on and ends the same."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

from rstar_jax import partitioning
from rstar_jax.models.parameters import Parameters
from rstar_jax.training.batches import Batch
from rstar_jax.training.config import TrainingConfig
from rstar_jax.training.optimizer import learning_rate, make_optimizer

History = list[dict[str, float]]  # the metrics of each step
LossFunction = Callable[[Parameters, dict[str, jax.Array]], tuple[jax.Array, dict[str, jax.Array]]]


def optimizer_shardings(abstract: Any, parameters: Parameters, mesh: Mesh) -> Any:
    """Moments lie as their parameters do; everything else is replicated. (jit alone would replicate the moments.)"""
    by_path = {
        jax.tree_util.keystr(path): leaf.sharding for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }
    shapes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)}
    replicated = NamedSharding(mesh, PartitionSpec())

    def of(path, leaf):
        key = jax.tree_util.keystr(path)
        for suffix, where in by_path.items():
            if key.endswith(suffix) and leaf.shape == shapes[suffix]:
                return where
        return replicated

    return jax.tree_util.tree_map_with_path(of, abstract)


class _Abstract:
    """A parameter tree as a key of a cache: what it looks like, not what it holds."""

    def __init__(self, parameters: Parameters):
        self.tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), parameters)
        leaves, structure = jax.tree.flatten(self.tree)
        self._key = (structure, tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Abstract) and self._key == other._key


def _optimizer_key(config: TrainingConfig) -> TrainingConfig:
    """`config` without what does not change the program."""
    return dataclasses.replace(config, steps=1, batch=1, learning_rate=0.0, warmup_steps=0, checkpoint_every=0, seed=0)


@functools.lru_cache(maxsize=8)
def _programs(loss_function: LossFunction, config: TrainingConfig, mesh: Mesh, abstract: _Abstract):
    """(initialise the optimizer, one train step), jitted once for all runs that differ in length and data only."""
    optimizer = make_optimizer(config)
    parameters = abstract.tree
    where = jax.tree.map(lambda leaf: leaf.sharding, parameters)
    state_where = optimizer_shardings(jax.eval_shape(optimizer.init, parameters), parameters, mesh)

    def update(parameters, state, batch, rate):
        (_, metrics), gradients = jax.value_and_grad(loss_function, has_aux=True)(parameters, batch)
        norm = optax.tree.norm(optax.tree.cast(gradients, jnp.float32))  # before it is clipped
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = jax.tree.map(lambda p, u: p + rate * u, parameters, updates)
        return parameters, state, {**metrics, "gradient_norm": norm}

    init = jax.jit(optimizer.init, out_shardings=state_where)
    return init, jax.jit(update, donate_argnums=(0, 1), out_shardings=(where, state_where, None))


def train(
    loss_function: LossFunction,
    parameters: Parameters,
    batch_at: Callable[[int], Batch],
    config: TrainingConfig,
    mesh: Mesh,
    *,
    checkpoints: epath.PathLike | None = None,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> tuple[Parameters, History]:
    """Trains `parameters` for `config.steps` steps; returns the new ones and the metrics of every step.

    batch_at: the batch of a step; a pure function of the step, which is what makes resuming exact.
    checkpoints: folder for parameters, optimizer state and history; a run that finds one there goes on from it.
    on_step: called with step and metrics, one step late so that the device is never waited for.

    Raises: ValueError for a batch that the mesh does not divide, and where loss or gradients are not finite: no
    checkpoint is written after such a step.
    """
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.batch % rows:
        raise ValueError(
            f"TrainingConfig.batch ({config.batch}): expected a multiple of data * fsdp of the mesh ({rows})"
        )
    with jax.set_mesh(mesh):
        init, update = _programs(loss_function, _optimizer_key(config), mesh, _Abstract(parameters))
        state = init(parameters)
        parameters = jax.tree.map(jnp.copy, parameters)  # the caller keeps its own: the step donates its arguments
        saver = Saver(checkpoints) if checkpoints is not None else None
        history: History = []
        if saver is not None and saver.latest_step is not None:
            parameters, state, history = saver.restore(parameters, state)
        rows = partitioning.sharding(mesh, "batch")
        pending = None

        def settle() -> None:
            if pending is not None:
                history.append({name: float(value) for name, value in pending.items()})
                _check_finite(len(history) - 1, history[-1])
                on_step(len(history) - 1, history[-1])

        for step in range(len(history), config.steps):
            batch = jax.device_put(batch_at(step), rows)
            parameters, state, metrics = update(parameters, state, batch, learning_rate(config, step))
            settle()
            pending = metrics
            if saver is not None and (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                settle()
                pending = None
                saver.save(step + 1, parameters, state, history)
        settle()
        if saver is not None:
            saver.close()
    return parameters, history


def _check_finite(step: int, metrics: dict[str, float]) -> None:
    if not all(map(math.isfinite, metrics.values())):
        found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        raise ValueError(
            f"training, step {step}: {found}: expected finite numbers; try a lower TrainingConfig.learning_rate"
        )


class Saver:
    """Checkpoints of a training that is under way: parameters and optimizer state apart, the last one kept."""

    def __init__(self, folder: epath.PathLike):
        training = ocp.training
        path = epath.Path(folder)
        self._checkpointer = training.Checkpointer(
            path if path.is_absolute() else path.resolve(),  # as Orbax wants it; gs://... is absolute as it is
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=training.preservation_policies.LatestN(1),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, parameters: Parameters, state: Any, history: History) -> None:
        """Writes the state after `step` steps, and the metrics of these steps with it."""
        self._checkpointer.save_checkpointables(
            step, {"parameters": parameters, "optimizer": state}, custom_metadata={"history": history}
        )

    def restore(self, parameters: Parameters, state: Any) -> tuple[Parameters, Any, History]:
        """(parameters, optimizer state, history) of the newest checkpoint, sharded like the arguments."""
        step = self.latest_step
        restored = self._checkpointer.load_checkpointables(step, {"parameters": parameters, "optimizer": state})
        metadata = self._checkpointer.checkpointables_metadata(step)
        return restored["parameters"], restored["optimizer"], list(metadata.custom_metadata["history"])

    def close(self) -> None:
        """Waits for what is being written."""
        self._checkpointer.close()
