"""JSON lines, as every mode reads them: UTF-8, a value a line, `.gz` unpacked, and faults named with their line."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

_SHOWN_CHARACTERS = 80


class Digits(str):
    """A number as it was written, for what must not be rounded."""


def read(path: epath.PathLike, *, digits: bool = False) -> Iterator[tuple[int, str, Any]]:
    """(line number, "FILE, line N", value) of every line that is not blank; at least one.

    digits: numbers as `Digits`, and no half characters, which a program may have printed but nobody asks or answers.
    Raises FileNotFoundError, or ValueError that names file and line.
    """
    file = epath.Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if file.is_dir():
        raise ValueError(f"{file}: a folder, expected a file of JSON lines")
    empty = True
    with file.open("rb") as packed:
        lines = gzip.open(packed) if file.name.endswith(".gz") else packed
        for row in parse(_named(lines, file), str(file), digits=digits):
            empty = False
            yield row
    if empty:
        raise ValueError(f"{file}: empty, expected one JSON object a line")


def parse(lines: Iterable[bytes | str], name: str, *, digits: bool = False) -> Iterator[tuple[int, str, Any]]:
    """As `read`, of lines that come from elsewhere, and may be none. name: what messages call it."""
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        try:
            text = line if isinstance(line, str) else line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8 ({error.reason}, byte {error.start + 1})") from None
        text = text.removeprefix("\ufeff") if number == 1 else text
        if text.strip():
            yield number, where, value(text, where, digits=digits)


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = json.dumps(_with_numbers(value))
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _with_numbers(value: Any) -> Any:
    match value:
        case Digits():
            return json.loads(value)
        case list():
            return [_with_numbers(one) for one in value]
        case dict():
            return {name: _with_numbers(one) for name, one in value.items()}
    return value


def _named(lines: Iterable[bytes], file: epath.Path) -> Iterator[bytes]:
    try:
        yield from lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file}: not a whole gzip file ({error})") from None


def value(text: str, where: str, *, digits: bool) -> Any:
    """The value that a text holds. Raises ValueError that begins with `where`."""
    numbers = {"parse_float": Digits, "parse_int": Digits, "parse_constant": _refuse} if digits else {}
    try:
        found = json.loads(text, **numbers)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise ValueError(f"{where}: not JSON (nested too deeply)") from None
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise ValueError(f"{where}: not JSON ({error})") from None
    if digits and "\\u" in text and not _is_text(found):
        raise ValueError(f"{where}: half a character (a lone surrogate)")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
