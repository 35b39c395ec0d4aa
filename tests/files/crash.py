"""A process that dies at its n-th change of a file: from then on nothing that it does has any effect."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator

from .bucket import Bucket, Killed

_CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
_state = {"left": None}


def _hook(event: str, arguments: tuple) -> None:
    if _state["left"] is None:
        return
    changes = event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
    if changes:
        if _state["left"] == 0:
            raise Killed
        _state["left"] -= 1


sys.addaudithook(_hook)


@contextlib.contextmanager
def at(point: int, is_remote: bool) -> Iterator[None]:
    """Kills what is inside at its `point`-th change."""
    try:
        if is_remote:
            Bucket.writes, Bucket.crash_at = 0, point
        else:
            _state["left"] = point
        yield
    finally:
        Bucket.crash_at = None
        _state["left"] = None


def everywhere(job: Callable[[], None], is_remote: bool, before: Callable[[], None], after: Callable[[], None]) -> int:
    """Runs `job` from the state that `before` makes, killed at each point in turn, then `after`; how many there are."""
    for point in itertools.count():
        before()
        try:
            with at(point, is_remote):
                job()
        except Killed:
            after()
        else:
            after()
            return point
