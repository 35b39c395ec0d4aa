"""What happens inside a fork: one program is run in a fresh `__main__`, and how it ended is written down.

From here on the interpreter belongs to untrusted code, which may have replaced anything in `os`, `sys` or `builtins`.
So this file takes the names it needs when it is loaded, and every path out of it ends in `_exit`.
"""

import __future__

import sys
from mmap import mmap
from os import _exit, ftruncate, lseek

DONE, ERROR, EXIT, MEMORY, PREFIX = 1, 2, 3, 4, 5
SECRET_BYTES = 16
_ERROR_BYTES = 500
_HEAD_BYTES = SECRET_BYTES + 3

_compile, _exec, _str, _len, _type_name = compile, exec, str, len, type.__dict__["__name__"].__get__
_Everything, _SystemExit, _MemoryError, _isinstance = BaseException, SystemExit, MemoryError, isinstance
_stop, _truncate, _seek, _sys = _exit, ftruncate, lseek, sys
_FUTURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_said = 0  # what `from __future__` has said so far: what follows a prefix is compiled as if it were one text with it


def execute(source: str, namespace: dict, reserve: list) -> tuple[int, str]:
    """Runs `source` in `namespace`. Returns how it ended and "Type: message" of what it raised.

    reserve: holds memory that is given back when the program has used up its own, so that this can still be told.
    """
    global _said
    try:
        code = _compile(source, "<step>", "exec", _said, True)
        _said |= code.co_flags & _FUTURES
        _exec(code, namespace)
        _flush()
        return DONE, ""
    except _Everything as error:
        if _isinstance(error, _MemoryError):
            reserve.clear()
            return MEMORY, "MemoryError"
        _flush()
        return EXIT if _isinstance(error, _SystemExit) else ERROR, _describe(error)


def run_prefix(source: str, namespace: dict, reserve: list, page: mmap, secret: bytes) -> None:
    """Runs what comes before a candidate and drops what it printed; if it fails, says so and ends the process."""
    kind, text = execute(source, namespace, reserve)
    _truncate(1, 0)
    _seek(1, 0, 0)
    if kind != DONE:
        try:
            report(page, secret, PREFIX, f"prefix: {text}")
        finally:
            _stop(0)


def run_to_the_end(source: str, namespace: dict, reserve: list, page: mmap, secret: bytes) -> None:
    """Runs `source`, reports on `page`, and ends the process. Never returns."""
    try:
        report(page, secret, *execute(source, namespace, reserve))
    finally:
        _stop(0)


def report(page: mmap, secret: bytes, kind: int, text: str) -> None:
    """Writes how a program ended; the secret goes last, so that a half-written report counts for nothing."""
    data = text.encode("utf-8", "backslashreplace")[:_ERROR_BYTES]
    page[_HEAD_BYTES : _HEAD_BYTES + _len(data)] = data
    page[SECRET_BYTES:_HEAD_BYTES] = kind.to_bytes(1, "big") + _len(data).to_bytes(2, "big")
    page[:SECRET_BYTES] = secret


def read_report(page: mmap, secret: bytes) -> tuple[int, str] | None:
    """What `report` wrote, or None if the program never came to its end."""
    if page[:SECRET_BYTES] != secret:
        return None
    length = min(int.from_bytes(page[SECRET_BYTES + 1 : _HEAD_BYTES], "big"), _ERROR_BYTES)
    return page[SECRET_BYTES], page[_HEAD_BYTES : _HEAD_BYTES + length].decode("utf-8", "replace")


def _flush() -> None:
    try:
        _sys.stdout.flush()
    except _Everything:
        pass  # closed or replaced by the program, or over the limit: the size of the output tells


def _describe(error: BaseException) -> str:
    name = _type_name(error.__class__ if _isinstance(error.__class__, type) else type(error))
    try:
        message = _str(error)
    except _Everything:
        message = "(no message: its __str__ failed)"
    return f"{name}: {message[:_ERROR_BYTES]}" if message else name
