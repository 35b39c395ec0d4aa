"""Small `torch.save` files, such as the released code's value_head.bin, without torch and without running their pickle.

The format: a zip with `data.pkl`, in which tensors refer to storages, and the raw bytes of each storage as `data/N`.
"""

import collections
import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from rstar_jax import files

_DTYPES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "BFloat16Storage": ml_dtypes.bfloat16}


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a file, by name. Raises: ValueError for anything but a dict of contiguous float tensors."""
    content = io.BytesIO(files.read(path))
    try:
        with zipfile.ZipFile(content) as archive:
            (table,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            folder = table.removesuffix("data.pkl")
            return dict(_Reader(archive, folder, io.BytesIO(archive.read(table))).load())
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a dict of float tensors, as torch.save writes it: {error}") from error


def write(path: epath.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes fp32 tensors so that `torch.load(path, weights_only=True)` reads them; equal ones as equal bytes."""
    pickled = [b"\x80\x02}"]  # protocol 2, an empty dict
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        folder = pathlib.PurePath(path).stem

        def add(name: str, part: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), part)  # of no time of day

        for number, (name, tensor) in enumerate(tensors.items()):
            tensor = np.ascontiguousarray(tensor, np.float32)
            pickled += [_text(name), _tensor(str(number), tensor), b"s"]
            add(f"data/{number}", tensor.tobytes())
        add("data.pkl", b"".join(pickled) + b".")
        add("byteorder", b"little")
        add("version", b"3\n")
    files.publish(path, content.getvalue())


class _Reader(pickle.Unpickler):
    """Knows the four names that such a file needs, and nothing that could do harm."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, file: io.BytesIO):
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, reference: tuple) -> np.ndarray:
        _, dtype, number, *_ = reference
        return np.frombuffer(self._archive.read(f"{self._folder}data/{number}"), dtype)


def _rebuild(storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_: Any) -> np.ndarray:
    size = int(np.prod(shape))
    if tuple(stride) != _contiguous(shape):
        raise ValueError("a tensor is not contiguous")
    return storage[offset : offset + size].reshape(shape)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def _tensor(number: str, tensor: np.ndarray) -> bytes:
    """The call of _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks)."""
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(number) + _text("cpu")
    storage += b"J" + struct.pack("<i", tensor.size) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = storage + b"J" + struct.pack("<i", 0) + _integers(tensor.shape) + _integers(_contiguous(tensor.shape))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89" + hooks + b"tR"
