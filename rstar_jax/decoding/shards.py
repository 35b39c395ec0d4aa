"""Programs of one data shard, run on all of them: nothing that they hold crosses from one to another."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
    """`program`, jitted, on every data shard at once. inputs, outputs: partition specs.

    The tensor axis is XLA's to split, as everywhere else; outputs come back as their specs say, so that what goes from
    chunk to chunk is laid out as it was at first, and nothing is compiled twice.
    """
    axes = set(RULES["batch"])

    def mapped(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(entry if entry is not None and axes & {*_names(entry)} else None for entry in spec))

    def each(function: Callable, specs: Any) -> Any:
        return jax.tree.map(function, specs, is_leaf=lambda spec: isinstance(spec, PartitionSpec))

    shard = jax.shard_map(
        program,
        mesh=mesh,
        in_specs=each(mapped, inputs),
        out_specs=each(mapped, outputs),
        axis_names=axes,
        check_vma=False,
    )
    whole = each(lambda spec: NamedSharding(mesh, spec), outputs)
    return counted(jax.jit(shard, donate_argnums=donate, out_shardings=whole))


def counted(jitted: Callable) -> Callable:
    """A jitted function, whose programs `compiled_programs` counts from now on."""
    _jitted.append(jitted)
    return jitted


def _names(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry


def compiled_programs() -> int:
    """How many programs this process has compiled here: constant after warm-up."""
    return sum(jitted._cache_size() for jitted in _jitted)
