"""A tree as bytes: a line of JSON that says how the columns are held, then the columns, one after another.

    {"format": 1, "problem": {...}, "key": 7, "size": 2, "columns": {"parent": "i1", "text": "u1 utf-8", ...}}
    columns: numbers as the smallest little-endian type that gives back the same bits;
        texts and token ids as the length of every row, then all rows joined.

What repeats (a text and its output, the steps of siblings) is left to the compression of the file the record lies in.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from rstar_jax.search.tree import Tree

FORMAT = 1

_INTEGERS = ("i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8")
_FLOATS = ("<f4", "<f8")
_TEXT = "utf-8"
_NONE = -1  # the length of a text that is None


def pack(tree: Tree) -> bytes:
    """The record of a tree; `unpack` gives back an equal one."""
    record = tree.to_dict()
    packed = {name: _pack_column(values) for name, values in record["columns"].items()}
    record["columns"] = {name: types for name, (types, _) in packed.items()}
    head = json.dumps({"format": FORMAT, "size": tree.size, **record}, separators=(",", ":"))
    return b"".join([head.encode(), b"\n", *(content for _, content in packed.values())])


def unpack(record: bytes) -> Tree:
    """The tree of a record. Raises ValueError where the bytes are none, or of another format."""
    head, _, content = record.partition(b"\n")
    try:
        fields = json.loads(head)
        found = fields["format"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"expected a tree in format {FORMAT}, got a record of something else") from None
    if found != FORMAT:
        raise ValueError(f"expected a tree in format {FORMAT}, got format {found}")
    rest = _Bytes(content)
    columns = {name: _unpack_column(types, fields["size"], rest) for name, types in fields["columns"].items()}
    rest.close()
    return Tree.from_dict({"problem": fields["problem"], "key": fields["key"], "columns": columns})


class _Bytes:
    """Bytes that are taken from the front."""

    def __init__(self, content: bytes):
        self.content, self.taken = content, 0

    def take(self, count: int) -> bytes:
        start, self.taken = self.taken, self.taken + count
        if self.taken > len(self.content):
            raise ValueError(f"the record of a tree breaks off after {len(self.content)} bytes")
        return self.content[start : self.taken]

    def numbers(self, dtype: str, count: int) -> list:
        return np.frombuffer(self.take(np.dtype(dtype).itemsize * count), dtype).tolist()

    def close(self) -> None:
        if self.taken != len(self.content):
            raise ValueError(f"the record of a tree goes on after {self.taken} of {len(self.content)} bytes")


def _pack_column(values: Sequence[Any]) -> tuple[str, bytes]:
    """How a column is held, and its bytes. The root, which every tree has, tells what the rows are."""
    if isinstance(values[0], int | float):
        return _pack_numbers(np.array(values))
    if isinstance(values[0], tuple):  # token ids
        lengths = [len(row) for row in values]
        types, content = _pack_numbers(np.array([token for row in values for token in row], np.int64))
    else:
        rows = [None if text is None else text.encode(_TEXT, "surrogatepass") for text in values]
        lengths = [_NONE if row is None else len(row) for row in rows]
        types, content = _TEXT, b"".join(row for row in rows if row)
    length_type, packed = _pack_numbers(np.array(lengths))
    return f"{length_type} {types}", packed + content


def _pack_numbers(values: np.ndarray) -> tuple[str, bytes]:
    bits = values.tobytes()
    with np.errstate(over="ignore", invalid="ignore"):
        for dtype in _FLOATS if values.dtype == np.float64 else _INTEGERS:
            small = values.astype(dtype)
            if small.astype(values.dtype).tobytes() == bits:
                return dtype, small.tobytes()
    raise ValueError(f"a tree's column holds {values.dtype}, which has no place in a record")


def _unpack_column(types: str, size: int, rest: _Bytes) -> list:
    dtype, _, inner = types.partition(" ")
    numbers = rest.numbers(dtype, size)
    if inner == _TEXT:
        return [None if n == _NONE else rest.take(n).decode(_TEXT, "surrogatepass") for n in numbers]
    if inner:
        tokens, ends = rest.numbers(inner, sum(numbers)), np.cumsum(numbers).tolist()
        return [tuple(tokens[end - n : end]) for n, end in zip(numbers, ends, strict=True)]
    return numbers
