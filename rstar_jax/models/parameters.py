"""Parameter trees: how they are made, sharded, and carried from a policy to its PPM.

Parameters are plain nested dicts; the module's structure (graphdef) is made once a configuration.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rstar_jax.models.config import LINEAR, DecoderConfig
from rstar_jax.models.decoder import LORA_A, LORA_B, Decoder, PreferenceModel
from rstar_jax.partitioning import sharding
from rstar_jax.partitioning.mesh import RULES

Parameters = dict[str, Any]

# Field of the configuration -> logical axis of that size, of those that lie on axes of the mesh.
_DIVIDED = {"vocabulary_size": "head_vocab", "embed": "embed", "kv_heads": "kv_heads", "mlp": "mlp"}


@functools.cache
def _structure(kind: type[nnx.Module], config: DecoderConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """(graphdef, abstract state) of a module."""
    return nnx.split(nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0))))


def bind(kind: type[nnx.Module], config: DecoderConfig, parameters: Parameters) -> nnx.Module:
    """The module over (traced) parameters, for use inside a jitted function."""
    graphdef, state = _structure(kind, config)
    leaves = jax.tree.leaves(parameters)
    _, structure = jax.tree.flatten(state)
    return nnx.merge(graphdef, jax.tree.unflatten(structure, leaves))


def axes(kind: type[nnx.Module], config: DecoderConfig) -> Parameters:
    """The logical axes of every parameter, without the layer axis of stacked ones."""
    _, state = _structure(kind, config)
    return nnx.to_pure_dict(
        jax.tree.map(
            lambda variable: tuple(variable.get_metadata()["axes"]),
            state,
            is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
        )
    )


def abstract(kind: type[nnx.Module], config: DecoderConfig, mesh: Mesh) -> Parameters:
    """Shape, dtype and sharding of every parameter, as a tree of the parameters' shape.

    Raises: ValueError for a mesh that does not divide them.
    """
    for field, logical in _DIVIDED.items():
        size, axes = getattr(config, field), RULES[logical]
        axes = (axes,) if isinstance(axes, str) else axes
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            raise ValueError(
                f"MeshConfig.{' * '.join(axes)} ({parts}): expected a divisor of DecoderConfig.{field} ({size})"
            )
    _, state = _structure(kind, config)

    def of(variable: nnx.Variable) -> jax.ShapeDtypeStruct:
        axes = tuple(variable.get_metadata()["axes"])
        stacked = len(variable.shape) - len(axes)
        where = sharding(mesh, *(("layers",) * stacked + axes))
        return jax.ShapeDtypeStruct(variable.shape, variable.dtype, sharding=where)

    return nnx.to_pure_dict(jax.tree.map(of, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)))


def shardings(kind: type[nnx.Module], config: DecoderConfig, mesh: Mesh) -> Parameters:
    """The sharding of every parameter."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract(kind, config, mesh))


def initialise(kind: type[nnx.Module], config: DecoderConfig, mesh: Mesh, seed: int) -> Parameters:
    """Random parameters, made in their shards."""

    def make():
        _, state = nnx.split(kind(config, rngs=nnx.Rngs(seed)))
        return nnx.to_pure_dict(state)

    return jax.jit(make, out_shardings=shardings(kind, config, mesh))()


def preference_from_policy(
    config: DecoderConfig, policy: Parameters, mesh: Mesh, value_scale: float = 1.0
) -> Parameters:
    """A PPM whose body is the policy and whose head is zero: it begins by preferring nothing."""
    head = {name: leaf for name, leaf in abstract(PreferenceModel, config, mesh).items() if name != "decoder"}
    zeros = {name: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding) for name, leaf in head.items()}
    return {**zeros, "value_scale": zeros["value_scale"] + value_scale, "decoder": policy}


def unstacked(config: DecoderConfig, parameters: Parameters, turned: bool = False) -> tuple[DecoderConfig, Parameters]:
    """The same model with arrays of their own for every layer (`DecoderConfig.stacked`), a copy of them.

    turned: of those that are, which the stack must not be: see `DecoderConfig.turned`.
    """
    if "decoder" in parameters:
        config, decoder = unstacked(config, parameters["decoder"], turned)
        return config, {**parameters, "decoder": decoder}
    own = dataclasses.replace(config, stacked=False, turned=turned)
    before, after = axes(Decoder, config)["layers"], axes(Decoder, own)["layers"][0]
    arrays, structure = jax.tree.flatten(parameters["layers"])
    orders = tuple(
        tuple(old.index(axis) for axis in new)
        for old, new in zip(structure.flatten_up_to(before), structure.flatten_up_to(after), strict=True)
    )
    layers = {i: structure.unflatten(_layer(arrays, i, orders)) for i in range(config.layers)}
    return own, {**parameters, "layers": layers}


@functools.partial(jax.jit, static_argnums=2)
def _layer(stacks: list[jax.Array], index: jax.Array, orders: tuple[tuple[int, ...], ...]) -> list[jax.Array]:
    """One layer's arrays of their stacks, the axes of each in another order."""
    return [
        jax.lax.dynamic_index_in_dim(stack, index, keepdims=False).transpose(order)
        for stack, order in zip(stacks, orders, strict=True)
    ]


def as_computed(config: DecoderConfig, values: Parameters) -> Parameters:
    """Matrices and tables in the dtype that they are multiplied in, so that no program has to cast them each time."""

    def of(path, leaf):
        large = path[-1].key in (*LINEAR, "embedding", "head") and leaf.ndim > 1
        return leaf.astype(config.jax_dtype) if large else leaf

    return jax.tree_util.tree_map_with_path(of, values)


def split(
    tree: Parameters, wanted: Callable[[tuple[str, ...]], bool], path: tuple[str, ...] = ()
) -> tuple[Parameters, Parameters]:
    """(what lies at paths that are wanted, the rest), as two trees."""
    picked, rest = {}, {}
    for name, value in tree.items():
        if isinstance(value, dict):
            for own, part in zip((picked, rest), split(value, wanted, (*path, name)), strict=True):
                if part:
                    own[name] = part
        else:
            (picked if wanted((*path, name)) else rest)[name] = value
    return picked, rest


def merge(one: Parameters, other: Parameters) -> Parameters:
    """The tree of two parts (`split`)."""
    both = {name: merge(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **both}


def is_trained(path: tuple[str, ...]) -> bool:
    """Whether a parameter is one that training changes, where no adapters are trained instead."""
    return path != ("value_scale",)


def is_adapted(path: tuple[str, ...]) -> bool:
    """Whether a parameter is one of those that training changes where there are adapters: these, and a PPM's head."""
    return path[-1].endswith((LORA_A, LORA_B)) or path in (("value",), ("bias",))


def count(parameters: Parameters) -> int:
    """How many numbers the parameters hold."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(parameters))
