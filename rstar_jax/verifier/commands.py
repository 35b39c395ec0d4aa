"""The commands `rstar verify` and `rstar grade`: JSON lines in, a line of verdicts out for each, in order."""

import contextlib
import dataclasses
import json
import pathlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from rstar_jax import files, json_lines
from rstar_jax.json_lines import Digits
from rstar_jax.problems import fields
from rstar_jax.verifier.grading import Grader
from rstar_jax.verifier.protocol import Limits, Request
from rstar_jax.verifier.verifier import Verifier

_AHEAD = 256  # lines read before the first of them is written; bounds memory, keeps the workers busy


def verify(*, input: str, output: str, limits: Limits, workers: int | None = None) -> None:
    """Runs programs: `{"prefix" (optional), "candidates": [...]}` lines in, `{"outcomes": [...]}` lines out.

    input, output: file names, or "-" for the standard streams. The output file appears when it is complete.
    Raises ValueError naming file and line where a line is malformed, OSError where a file cannot be used.
    """
    expected = 'an object with "candidates" (a list of strings) and "prefix" (a string, optional)'
    with _reading(input) as lines, _writing(output) as write, Verifier(limits, workers) as verifier:
        requests = _records(lines, _request, expected)
        _write_in_order(map(verifier.submit, requests), lambda outcomes: write(_outcomes(outcomes)))


def grade(*, input: str, output: str, workers: int = 1) -> None:
    """Grades answers: `{"gold", "answer"}` lines in, `{"equal": true | false | null}` lines out; null is undecided.

    input, output: file names, or "-" for the standard streams. The output file appears when it is complete.
    Raises ValueError naming file and line where a line is malformed, OSError where a file cannot be used.
    """
    with _reading(input) as lines, _writing(output) as write, Grader(workers) as grader:
        pairs = _records(lines, _pair, 'an object with "gold" and "answer" (texts or numbers; "gold" also a list)')
        _write_in_order(map(grader.submit, pairs), lambda equal: write({"equal": equal}))


def _write_in_order(futures: Iterator[Future], write: Callable[[object], None]) -> None:
    """Writes each result once it and those before it are there, while the next lines are read or waited for.

    What ends the reading, Ctrl-C above all, ends the writing too: what is under way is not waited for.
    """
    started: queue.Queue[Future | None] = queue.Queue(_AHEAD)
    failures: list[BaseException] = []

    def write_results() -> None:
        while (future := started.get()) is not None:
            try:
                if not failures:
                    write(future.result())
            except BaseException as error:
                failures.append(error)

    writer = threading.Thread(target=write_results, name="writer", daemon=True)
    writer.start()
    try:
        for future in futures:
            started.put(future)
            if failures:
                break
        started.put(None)
        writer.join()
    except BaseException as error:
        failures.append(error)
        raise
    if failures:
        raise failures[0]


def _request(record: object) -> Request | None:
    if not isinstance(record, dict) or not isinstance(record.get("candidates"), list):
        return None
    prefix, candidates = record.get("prefix", ""), record["candidates"]
    if not all(isinstance(source, str) and not isinstance(source, Digits) for source in (prefix, *candidates)):
        return None
    return Request(prefix=prefix, candidates=tuple(candidates))


def _pair(record: object) -> tuple[tuple[str, ...], str] | None:
    if not isinstance(record, dict) or not isinstance(record.get("answer"), str):
        return None
    try:
        return fields.answers(record.get("gold")), fields.answers(record["answer"])[0]
    except ValueError:
        return None


def _outcomes(outcomes: list) -> dict:
    return {"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}


@contextlib.contextmanager
def _reading(name: str) -> Iterator[Iterator[tuple[int, str, Any]]]:
    """Gives the values of a file's lines, or of the standard input's as they come, with where they stand."""
    if name == "-":
        yield json_lines.parse(getattr(sys.stdin, "buffer", sys.stdin), "standard input", digits=True)
    else:
        with contextlib.closing(json_lines.read(name, digits=True)) as lines:
            yield lines


def _records(lines: Iterator[tuple[int, str, Any]], read: Callable[[object], object], expected: str) -> Iterator:
    """Yields what `read` makes of each value."""
    for _, where, value in lines:
        record = read(value)
        if record is None:
            raise ValueError(f"{where}: expected {expected}, got {json_lines.shown(value)}")
        yield record


@contextlib.contextmanager
def _writing(name: str) -> Iterator[Callable[[dict], None]]:
    """Gives a function that writes one record; the file takes its name only if nothing went wrong."""
    if name == "-":
        yield lambda record: print(json.dumps(record), flush=True)
        return
    if "://" not in name and not pathlib.Path(name).parent.is_dir():
        raise FileNotFoundError(f"{name}: expected its folder to exist")
    with files.staged(name) as local, open(local, "w", encoding="utf-8") as file:
        yield lambda record: print(json.dumps(record), file=file)
