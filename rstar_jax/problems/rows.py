"""Rows of files: JSON lines, a JSON list, Parquet. Each with its number and, for messages, where it stands."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from etils import epath

from rstar_jax import json_lines

_CHUNK = 1 << 20  # characters of a JSON list that are held at a time, unless an item is longer
_BATCH = 1024  # rows of a Parquet file that are held at a time
_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[\s,]*")
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")

Row = tuple[int, str, Any]  # number, counted from 1; where it stands; the row


def read(path: epath.PathLike) -> Iterator[Row]:
    """The rows of a file, one after another: of `.parquet`, of the list in a `.json`, else a row a line.

    Raises FileNotFoundError, or ValueError that names the file and where it is not what its name says.
    """
    file = epath.Path(path)
    if file.suffix not in (".parquet", ".json"):
        return json_lines.read(file, digits=True)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    return _of_parquet(file) if file.suffix == ".parquet" else _of_list(file)


def _of_parquet(file: epath.Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    with file.open("rb") as opened:
        try:
            for batch in parquet.ParquetFile(opened).iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, f"{file}, row {number}", row
        except pyarrow.ArrowException as error:
            raise ValueError(f"{file}: not Parquet ({str(error).splitlines()[0]})") from None
    if not number:
        raise ValueError(f"{file}: empty, expected a problem a row")


def _of_list(file: epath.Path) -> Iterator[Row]:
    """The items of a list, read piece by piece: such a file may be larger than what becomes of it."""
    number = 0
    with file.open("r", encoding="utf-8-sig") as opened:
        text, place = _piece(opened, file).lstrip(), 1
        if not text.startswith("["):
            raise ValueError(f"{file}: expected a JSON list; a file of JSON lines is called .jsonl")
        while True:
            place = _BETWEEN.match(text, place).end()
            if text.startswith("]", place):
                break
            where = f"{file}, item {number + 1}"
            try:
                end = _DECODER.raw_decode(text, place)[1]
            except (ValueError, RecursionError):
                if piece := _piece(opened, file):  # the item goes on there
                    text, place = text[place:] + piece, 0
                    continue
                end = len(text)
            number += 1
            yield number, where, json_lines.value(text[place:end], where, digits=True)
            place = end
    if not number:
        raise ValueError(f"{file}: empty, expected a list of problems")


def _piece(opened: TextIO, file: epath.Path) -> str:
    try:
        return opened.read(_CHUNK)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason})") from None
