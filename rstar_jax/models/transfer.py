"""Between a checkpoint's tensors and our parameters: what each device holds is read for it alone."""

import functools
import itertools
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from rstar_jax.models import parameters
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder
from rstar_jax.models.layouts import Tensor, axis_sizes
from rstar_jax.models.safetensors_folder import TensorReader, write_tensors
from rstar_jax.partitioning import processes

_ROWS = 512
_THREADS = 4  # that read and convert
_ALIGNMENT = 64  # bytes


def read(reader: TensorReader, rows: list[Tensor], config: DecoderConfig, mesh: Mesh) -> parameters.Parameters:
    """The decoder's parameters, each device's shard read for itself."""
    _check(reader, rows, config)
    axes = parameters.axes(Decoder, config)
    values = parameters.abstract(Decoder, config, mesh)
    for row in rows:
        wanted = _get(values, row.path)
        shard = functools.partial(_read_shard, reader, row, _get(axes, row.path), axis_sizes(config), wanted, {})
        _get(values, row.path[:-1])[row.path[-1]] = jax.make_array_from_callback(wanted.shape, wanted.sharding, shard)
    return values


def write(
    folder: epath.Path,
    values: parameters.Parameters,
    rows: list[Tensor],
    config: DecoderConfig,
    shard_bytes: int,
) -> None:
    """The decoder's parameters as safetensors, one tensor fetched from the devices at a time.

    Where several processes hold them, all must call; the first writes.
    """
    axes = parameters.axes(Decoder, config)
    written: dict[str, list[tuple[Tensor, int | None]]] = {}
    for layer in (None, *range(config.layers)):
        for row in rows:
            if row.stacked == (layer is not None):
                written.setdefault(row.name(layer), []).append((row, layer))

    def size(row: Tensor) -> int:
        return _get(values, row.path).nbytes // (config.layers if row.stacked else 1)

    def part(row: Tensor, layer: int | None) -> np.ndarray:
        value = _get(values, row.path)
        return _to_tensor(fetch(value if layer is None else value[layer]), row, _get(axes, row.path))

    sizes = {name: sum(size(row) for row, _ in parts) for name, parts in written.items()}
    tensors = ((name, np.concatenate([part(*own) for own in parts])) for name, parts in written.items())
    if processes.is_first():
        write_tensors(folder, sizes, tensors, shard_bytes)
    else:
        for _ in tensors:
            pass


def fetch(value: jax.Array) -> np.ndarray:
    """A whole array in the host's memory. Of one that lies on several processes' devices, all of them must ask."""
    if value.is_fully_addressable:
        return np.asarray(value)
    return multihost_utils.process_allgather(value, tiled=True)


def _check(reader: TensorReader, rows: list[Tensor], config: DecoderConfig) -> None:
    """Raises ValueError for the first tensor that is missing, of another shape, or that nothing here stands for."""
    sizes = axis_sizes(config)
    shapes: dict[str, tuple[int, ...]] = {}
    for row in rows:
        own = tuple(math.prod(sizes[axis] for axis in group) for group in row.axes)
        for layer in range(config.layers) if row.stacked else (None,):
            shapes[row.name(layer)] = (row.start + own[0], *own[1:])  # the last of fused ones ends the tensor
    for name, shape in shapes.items():
        if reader.shape(name) != shape:
            raise ValueError(
                f"{reader.folder}: tensor {name} has shape {reader.shape(name)}, config.json makes it {shape}"
            )
    # A tied head may be stored all the same; inverse frequencies are computed here.
    left = [name for name in sorted(reader.keys() - shapes.keys()) if not name.endswith("rotary_emb.inv_freq")]
    left = [name for name in left if not (config.tied and name == "lm_head.weight")]
    if left:
        raise ValueError(
            f"{reader.folder}: tensor {left[0]} has no place in this architecture ({len(left)} such tensors)"
        )


def _read_shard(
    reader: TensorReader,
    row: Tensor,
    axes: tuple[str, ...],
    sizes: Mapping[str, int],
    wanted: jax.ShapeDtypeStruct,
    done: dict[str, np.ndarray],
    index: tuple[slice, ...],
) -> np.ndarray:
    """One device's part of a parameter, layer by layer from the tensors that hold it.

    done: the parts that are read already: devices may hold the same one.
    """
    if str(index) in done:
        return done[str(index)]
    within = dict(zip(axes, index[len(index) - len(axes) :], strict=True))
    ranges = []
    for i, group in enumerate(row.axes):
        outer = within[group[0]].indices(sizes[group[0]])
        inner = math.prod(sizes[axis] for axis in group[1:])  # never sharded: heads are, not what is in them
        start = row.start if i == 0 else 0
        ranges.append(slice(start + outer[0] * inner, start + outer[1] * inner))
    transposed = axes != tuple(axis for group in row.axes for axis in group)
    shape = [len(range(*within[axis].indices(sizes[axis]))) for axis in axes]
    layers = range(*index[0].indices(wanted.shape[0])) if row.stacked else (None,)
    shard = _empty((len(layers), *shape), wanted.dtype)
    rows, columns = ranges[0], ranges[1:]
    # A matrix without layers is read in as many parts as there are threads.
    step = max(rows.stop - rows.start if row.stacked or transposed else -(-(rows.stop - rows.start) // _THREADS), 1)

    def fill(part: tuple[int, int]) -> None:
        place, start = part
        tensor = reader.read(row.name(layers[place]), (slice(start, min(start + step, rows.stop)), *columns))
        if transposed:
            _transpose(tensor, shard[place].reshape(tensor.shape[::-1]))
        else:
            own = shard[place].reshape(rows.stop - rows.start, *tensor.shape[1:])
            _copy(tensor, own[start - rows.start : start - rows.start + len(tensor)])

    with ThreadPoolExecutor(_THREADS) as threads:  # numpy lets others run while it copies
        starts = range(rows.start, max(rows.stop, rows.start + 1), step)
        list(threads.map(fill, itertools.product(range(len(layers)), starts)))
    done[str(index)] = shard if row.stacked else shard[0]
    return done[str(index)]


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins where a CPU's device arrays may begin: it becomes one without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy(tensor: np.ndarray, into: np.ndarray) -> None:
    """`into` = `tensor`; of bfloat16, the bits of a float32 whose lower half is zero."""
    if (tensor.dtype, into.dtype) == (jnp.bfloat16, jnp.float32):
        np.left_shift(tensor.view(np.uint16), 16, out=into.view(np.uint32), dtype=np.uint32)
    else:
        into[...] = tensor


def _transpose(matrix: np.ndarray, into: np.ndarray) -> None:
    """`into` = `matrix`.T, some rows at a time: whole columns would read a line of memory for every number."""
    for start in range(0, len(matrix), _ROWS):
        rows = matrix[start : start + _ROWS]
        own = np.empty(rows.shape, into.dtype)
        _copy(rows, own)
        into[:, start : start + _ROWS] = own.T


def _to_tensor(value: np.ndarray, row: Tensor, axes: tuple[str, ...]) -> np.ndarray:
    """Our parameter (of one layer) as the checkpoint's tensor."""
    order = [axes.index(axis) for group in row.axes for axis in group]
    sizes = dict(zip(axes, value.shape, strict=True))
    shape = [math.prod(sizes[axis] for axis in group) for group in row.axes]
    return np.ascontiguousarray(value.transpose(order).reshape(shape))  # safetensors would write a view's base


def _get(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    return functools.reduce(lambda node, name: node[name], path, tree)
