"""The commands `rstar verify` and `rstar grade`: JSON lines in, a line of verdicts out for each, in order."""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from rstar_jax.verifier.grading import Grader
from rstar_jax.verifier.protocol import Limits, Request
from rstar_jax.verifier.verifier import Verifier

_AHEAD = 256  # lines read before the first of them must be written; bounds memory, keeps the workers busy
_SHOWN_CHARACTERS = 80


def verify(*, input: str, output: str, limits: Limits | None = None, workers: int | None = None) -> None:
    """Runs programs: `{"prefix" (optional), "candidates": [...]}` lines in, `{"outcomes": [...]}` lines out.

    input, output: file names, or "-" for the standard streams. The output file appears when it is complete.
    Raises ValueError naming file and line where a line is malformed, OSError where a file cannot be used.
    """
    expected = 'an object with "candidates" (a list of strings) and "prefix" (a string, optional)'
    with _writing(output) as write, Verifier(limits, workers) as verifier:
        waiting = collections.deque()
        for request in _records(input, _request, expected):
            waiting.append(verifier.submit(request))
            if len(waiting) == _AHEAD:
                write(_outcomes(waiting.popleft().result()))
        while waiting:
            write(_outcomes(waiting.popleft().result()))


def grade(*, input: str, output: str, workers: int = 1) -> None:
    """Grades answers: `{"gold", "answer"}` lines in, `{"equal": true | false | null}` lines out; null is undecided.

    input, output: file names, or "-" for the standard streams. The output file appears when it is complete.
    Raises ValueError naming file and line where a line is malformed, OSError where a file cannot be used.
    """
    with _writing(output) as write, Grader(workers) as grader:
        pairs = _records(input, _pair, 'an object with "gold" and "answer" (strings)')
        while batch := [pair for pair, _ in zip(pairs, range(_AHEAD), strict=False)]:
            for equal in grader.grade(batch):
                write({"equal": equal})


def _request(record: object) -> Request | None:
    if not isinstance(record, dict) or not isinstance(record.get("candidates"), list):
        return None
    prefix, candidates = record.get("prefix", ""), record["candidates"]
    if not isinstance(prefix, str) or not all(isinstance(candidate, str) for candidate in candidates):
        return None
    return Request(prefix=prefix, candidates=tuple(candidates))


def _pair(record: object) -> tuple[str, str] | None:
    if not isinstance(record, dict):
        return None
    gold, answer = record.get("gold"), record.get("answer")
    return (gold, answer) if isinstance(gold, str) and isinstance(answer, str) else None


def _outcomes(outcomes: list) -> dict:
    return {"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}


def _records(name: str, read: Callable[[object], object], expected: str) -> Iterator:
    """Yields what `read` makes of each line that is not empty."""
    with contextlib.nullcontext(sys.stdin) if name == "-" else open(name, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = read(json.loads(line))
            except ValueError:
                record = None
            if record is None:
                shown = line.strip()
                shown = shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "..."
                name = "standard input" if name == "-" else name
                raise ValueError(f"{name}, line {number}: expected {expected}, got {shown}")
            yield record


@contextlib.contextmanager
def _writing(name: str) -> Iterator[Callable[[dict], None]]:
    """Gives a function that writes one record; the file takes its name only if nothing went wrong."""
    if name == "-":
        yield lambda record: _write(sys.stdout, record)
        sys.stdout.flush()
        return
    path = pathlib.Path(name)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name}: expected its folder to exist")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            yield lambda record: _write(file, record)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: TextIO, record: dict) -> None:
    file.write(json.dumps(record) + "\n")
