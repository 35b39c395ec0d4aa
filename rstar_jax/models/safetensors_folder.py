"""Reads and writes the safetensors files of a Hugging Face folder: lazily, a slice at a time, a shard at a time."""

import contextlib
import json
from collections.abc import Iterable, Mapping

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rstar_jax import files, json_object

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class TensorReader:
    """The tensors of a folder, whichever file each lies in. Nothing is read until a slice is asked for."""

    def __init__(self, folder: epath.PathLike):
        self.folder = epath.Path(folder)
        self._files = contextlib.ExitStack()
        self._open: dict[str, safe_open] = {}
        self._where = self._index()

    def __enter__(self) -> "TensorReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def keys(self) -> set[str]:
        """The names of all tensors."""
        return set(self._where)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises: ValueError if there is none of this name."""
        return tuple(self._slice(key).get_shape())

    def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor, in the dtype in which it is stored."""
        try:
            return self._slice(key)[index]
        except (SafetensorError, TypeError, AttributeError) as error:  # of a dtype that numpy has not, fp8 for one
            raise ValueError(f"{self.folder}: tensor {key} cannot be read: {error}") from error

    def _index(self) -> dict[str, str]:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: expected a Hugging Face folder there")
        path = self.folder / _INDEX
        if files.exists(path):
            where = json_object.read(path).get("weight_map")
            if not isinstance(where, dict):
                raise ValueError(f"{path}: expected JSON with a weight_map")
            lost = sorted({name for name in where.values() if not files.exists(self.folder / name)})
            if lost:
                raise FileNotFoundError(f"{self.folder / lost[0]}: {_INDEX} names this file, and it is not there")
            return where
        if not files.exists(self.folder / _SINGLE):
            raise FileNotFoundError(f"{self.folder}: expected {_SINGLE} or {_INDEX} there")
        return dict.fromkeys(self._file(_SINGLE).keys(), _SINGLE)

    def _file(self, name: str) -> safe_open:
        if name not in self._open:
            path = self.folder / name
            try:
                with files.fetched(path) as local:
                    self._open[name] = self._files.enter_context(safe_open(local, "numpy"))
            except SafetensorError as error:
                raise ValueError(f"{path}: truncated or corrupt: {error}") from error
        return self._open[name]

    def _slice(self, key: str):
        if key not in self._where:
            raise ValueError(f"{self.folder}: tensor {key} is missing")
        try:
            return self._file(self._where[key]).get_slice(key)
        except SafetensorError as error:
            raise ValueError(f"{self.folder}: tensor {key} is missing from {self._where[key]}: {error}") from error


def write_tensors(
    folder: epath.PathLike, sizes: Mapping[str, int], tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int
) -> None:
    """Writes named tensors into files of at most `shard_bytes` each (one larger tensor has a file of its own).

    sizes: the bytes of every tensor, in the order in which `tensors` gives them, so that files can be named before
    they are written. At most one file's tensors are held at a time. Weights that were there under the names that a
    reader looks for first are removed: they would hide the new ones.
    """
    folder = epath.Path(folder)
    for name in (_INDEX, _SINGLE):
        files.remove(folder / name)
    groups: list[list[str]] = [[]]
    room = shard_bytes
    for key, size in sizes.items():
        if size > room and groups[-1]:
            groups.append([])
            room = shard_bytes
        groups[-1].append(key)
        room -= size
    names = [_SINGLE]
    if len(groups) > 1:
        names = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    stream = iter(tensors)
    for name, keys in zip(names, groups, strict=True):
        held = dict(next(stream) for _ in keys)
        with files.staged(folder / name) as local:
            save_file(held, local, metadata={"format": "pt"})
        del held
    if len(groups) > 1:
        where = {key: name for name, keys in zip(names, groups, strict=True) for key in keys}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        files.publish(folder / _INDEX, json.dumps(index, indent=2))
