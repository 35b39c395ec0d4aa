"""Programs of one data shard, run on all of them: nothing that they hold crosses from one to another."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from rstar_jax.partitioning import sharding
from rstar_jax.partitioning.mesh import RULES

SHARD = PartitionSpec(RULES["batch"])
_jitted: list[Callable] = []


def shards(mesh: Mesh) -> int:
    """How many parts of a mesh hold different nodes."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def put(mesh: Mesh, arrays: Any) -> Any:
    """Host arrays whose first axis is split over the data shards."""
    return jax.device_put(arrays, sharding(mesh, "batch"))


def on_shards(program: Callable, mesh: Mesh, inputs: Any, outputs: Any, donate: tuple[int, ...] = ()) -> Callable:
    """`program`, jitted, on every data shard at once. inputs, outputs: partition specs over the batch axes alone.

    The tensor axis is XLA's to split, as everywhere else.
    """
    mapped = jax.shard_map(
        program, mesh=mesh, in_specs=inputs, out_specs=outputs, axis_names=set(RULES["batch"]), check_vma=False
    )
    jitted = jax.jit(mapped, donate_argnums=donate)
    _jitted.append(jitted)
    return jitted


def compiled_programs() -> int:
    """How many programs this process has compiled here: constant after warm-up."""
    return sum(jitted._cache_size() for jitted in _jitted)
