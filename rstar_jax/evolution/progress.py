"""Progress: on a terminal a bar a phase, with its rate; elsewhere a line a minute, and one at the end."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)  # progress
output = Console()  # results
_LINE_SECONDS = 60.0


@contextlib.contextmanager
def bar(description: str, total: int, unit: str, begun_at: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Gives `advance_to(done, note)`; the bar shows how many `unit` a second are done.

    begun_at: what was done before, which is not part of the rate.
    """
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total, completed=begun_at, rate="", note="")
        start = said = time.monotonic()
        line = ""

        def advance_to(done: int, note: str = "") -> None:
            nonlocal line, said
            now = time.monotonic()
            rate = (done - begun_at) / max(now - start, 1e-9)
            progress.update(task, completed=done, rate=f"{rate:.1f} {unit}/s", note=note)
            line = f"{description}: {done}/{total} {unit}, {rate:.1f}/s, {now - start:.1f} s  {note}".rstrip()
            if not console.is_terminal and now - said >= _LINE_SECONDS:
                say(line)
                line, said = "", now

        yield advance_to
    if not console.is_terminal and line:
        say(line)


def say(message: str) -> None:
    """One line to the person who watches."""
    console.print(message, highlight=False, soft_wrap=True)  # a log's line is one line


def numbers(values: dict[str, float]) -> str:
    """Metrics as a note beside a bar."""
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
