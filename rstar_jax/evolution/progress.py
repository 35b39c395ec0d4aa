"""Progress on the terminal: one bar a phase with rate and remaining time."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)  # progress
output = Console()  # results


@contextlib.contextmanager
def bar(description: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    """Gives `advance_to(done, note)`; the bar shows how many `unit` a second are done."""
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
        task = progress.add_task(description, total=total, rate="", note="")
        start = time.perf_counter()
        last = ""

        def advance_to(done: int, note: str = "") -> None:
            nonlocal last
            rate = done / max(time.perf_counter() - start, 1e-9)
            progress.update(task, completed=done, rate=f"{rate:.1f} {unit}/s", note=note)
            last = f"{description}: {done}/{total} {unit}, {rate:.1f}/s, {time.perf_counter() - start:.1f} s  {note}"

        yield advance_to
    if not console.is_terminal:  # a log file gets one line a phase instead of a bar
        say(last)


def say(message: str) -> None:
    """One line to the person who watches."""
    console.print(message, highlight=False)


def numbers(values: dict[str, float]) -> str:
    """Metrics as a note beside a bar."""
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())
