"""Meshes and logical axes: every sharding decision of the project.

Arrays name their axes logically ('batch', 'embed', 'heads', ...); RULES says on which mesh axes they lie.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "length": None,
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "head_vocab": ("fsdp", "tensor"),  # so that neither the head nor its gradient is ever whole on a device
    "activation": None,
    "rank": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices lie on each mesh axis. -1, once at most, takes what is left.

    slices: of TPUs that a network joins, not their own links; `data` is a multiple, so that gradients alone cross.
    cpu_devices: where there is no accelerator, make so many devices of the CPU: XLA splits small operations badly over
    cores, and whole batches well.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    slices: int = 1
    cpu_devices: int = 1


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None, *, every: bool = False) -> Mesh:
    """A mesh of `devices`; by default of this process's, or of `every` process's.

    Axes are Auto: jax.make_mesh would make them Explicit.

    Raises: ValueError for axes that need more devices than there are, or that the slices do not divide.
    """
    if devices is None:
        if "device_count" not in os.environ.get("XLA_FLAGS", ""):
            with contextlib.suppress(RuntimeError):  # a backend that has started keeps its devices
                jax.config.update("jax_num_cpu_devices", config.cpu_devices)
        devices = jax.devices() if every else jax.local_devices()
    sizes = [config.data, config.fsdp, config.tensor]
    if -1 in sizes:
        known = -sizes[0] * sizes[1] * sizes[2]
        sizes[sizes.index(-1)] = len(devices) // known
    needed = sizes[0] * sizes[1] * sizes[2]
    if not 0 < needed <= len(devices):
        raise ValueError(f"MeshConfig {config}: expected at most {len(devices)} devices, the axes need {needed}")
    types = (AxisType.Auto,) * 3
    if config.slices == 1:
        return jax.make_mesh(tuple(sizes), MESH_AXES, devices=devices[:needed], axis_types=types)
    if sizes[0] % config.slices:
        raise ValueError(
            f"MeshConfig.slices ({config.slices}): expected a divisor of the axis `data`, which has {sizes[0]}"
        )
    within = (sizes[0] // config.slices, *sizes[1:])
    grid = mesh_utils.create_hybrid_device_mesh(within, (config.slices, 1, 1), devices=devices[:needed])
    return Mesh(grid, MESH_AXES, axis_types=types)


def spec(*names: str | None, without: Iterable[str] = ()) -> PartitionSpec:
    """The partition spec of an array whose axes have these logical names; a mesh axis is used once at most."""
    used: set[str] = set(without)
    entries = []
    for name in names:
        axes = RULES[name] if name else None
        axes = (axes,) if isinstance(axes, str) else axes or ()
        axes = tuple(axis for axis in axes if axis not in used)
        used.update(axes)
        entries.append(axes if len(axes) > 1 else axes[0] if axes else None)
    return PartitionSpec(*entries)


def sharding(mesh: Mesh, *names: str | None) -> NamedSharding:
    """The sharding on `mesh` of an array whose axes have these logical names."""
    return NamedSharding(mesh, spec(*names))


def place(mesh: Mesh, arrays: dict[str, np.ndarray], *names: str | None) -> dict[str, jax.Array]:
    """Arrays whose first axes have these logical names, on the mesh: each process gives its devices their parts.

    Every process has the whole arrays, and the same.
    """
    where = sharding(mesh, *names)
    return {name: jax.make_array_from_callback(value.shape, where, value.__getitem__) for name, value in arrays.items()}


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Holds a traced array to the sharding of its logical axes, under the mesh that is set (`jax.set_mesh`).

    Inside a `shard_map` the mesh axes that it maps over are left out: a shard of them is all that is seen there.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*names, without=mesh.manual_axes))
