"""The train step: one jitted program for every loss."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rstar_jax.models.parameters import Parameters, merge
from rstar_jax.training.config import TrainingConfig
from rstar_jax.training.losses import Sums
from rstar_jax.training.optimizer import make_optimizer

LossFunction = Callable[[Parameters, dict[str, jax.Array]], Sums]
LEAST = 1e-9  # that a sum is divided by: what has nothing to learn from has a loss of 0


class Abstract:
    """A tree of arrays as a key of a cache: what it looks like, not what it holds."""

    def __init__(self, tree: Any):
        self.tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
        leaves, structure = jax.tree.flatten(self.tree)
        self._key = (structure, tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Abstract) and self._key == other._key


def _key(config: TrainingConfig) -> TrainingConfig:
    """`config` without what does not change the program."""
    return TrainingConfig(
        steps=1,
        batch=1,
        learning_rate=0.0,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        gradient_clip=config.gradient_clip,
        beta2=config.beta2,
    )


def programs(loss_function: LossFunction, config: TrainingConfig, mesh: Mesh, abstract: Abstract):
    """(abstract optimizer state, make it of parameters, one train step), compiled once for all runs that share them.

    step(parameters, state, frozen, batch, count, rate) -> (parameters, state, metrics). The loss is that of parameters
    and frozen ones together. The batch's arrays are [A, b, ...], of which the first `count` parts are learned from, one
    after the other: gradients are sums over tokens, or pairs, that are divided once, by how many there are in all of
    them. Parameters and state are given away.
    """
    return _programs(loss_function, _key(config), mesh, abstract)


@functools.lru_cache(maxsize=8)
def _programs(loss_function: LossFunction, config: TrainingConfig, mesh: Mesh, abstract: Abstract):
    optimizer = make_optimizer(config)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract.tree)
    state = jax.eval_shape(optimizer.init, abstract.tree)
    state_where = optimizer_shardings(state, abstract.tree, mesh)
    state = jax.tree.map(lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own), state, state_where)

    # Muon's products are of one layer each: each copy of the model makes those of its part of the layers.
    apart = jax.tree.map(
        lambda x: (
            NamedSharding(mesh, PartitionSpec("data"))
            if x.ndim > 2 and x.shape[0] % mesh.shape["data"] == 0
            else x.sharding
        ),
        abstract.tree,
    )

    def minimised(parameters, frozen, part):
        sums = loss_function(merge(parameters, frozen), part)
        return sums["loss"][0], sums

    def step(parameters, state, frozen, batch, count, rate):
        def gradients_of(parameters, part):
            (_, sums), gradients = jax.value_and_grad(minimised, has_aux=True)(parameters, frozen, part)
            return jax.lax.with_sharding_constraint(gradients, where), sums

        first = jax.tree.map(lambda x: x[0], batch)
        if batch["tokens"].shape[0] == 1:
            gradients, sums = gradients_of(parameters, first)
        else:
            empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients_of, parameters, first))

            def add(i, total):
                part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batch)
                return jax.tree.map(jnp.add, total, gradients_of(parameters, part))

            gradients, sums = jax.lax.fori_loop(0, count, add, empty)
        gradients = jax.tree.map(lambda x: x / jnp.maximum(sums["loss"][1], LEAST), gradients)
        if config.optimizer == "muon":
            gradients = jax.lax.with_sharding_constraint(gradients, apart)
        metrics = {name: total / jnp.maximum(of, LEAST) for name, (total, of) in sums.items()}
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = jax.tree.map(lambda p, u: p + rate * u, parameters, updates)
        metrics |= {
            "gradient_norm": optax.tree.norm(gradients),  # before it is clipped
            "update_norm": rate * optax.tree.norm(updates),
        }
        return parameters, state, metrics

    init = jax.jit(optimizer.init, out_shardings=state_where)
    everywhere = NamedSharding(mesh, PartitionSpec())  # what every process can read
    return state, init, jax.jit(step, donate_argnums=(0, 1), out_shardings=(where, state_where, everywhere))


@functools.lru_cache(maxsize=8)
def evaluation(loss_function: LossFunction, mesh: Mesh):
    """The sums of a part of a batch, of (parameters, batch [A, b, ...], number of the part)."""

    def sums(parameters, batch, part):
        return loss_function(parameters, jax.tree.map(lambda x: x[part], batch))

    return jax.jit(sums, out_shardings=NamedSharding(mesh, PartitionSpec()))


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
