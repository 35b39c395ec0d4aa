"""How long processes were at work on a phase, those that were killed too.

RUN/attempts/2_policy/WORD.json    one process: {"began", "until"}, seconds since the epoch, written every few seconds
"""

import contextlib
import json
import secrets
import threading
import time

from etils import epath

from rstar_jax import files

_EVERY = 15.0  # seconds; what is lost of the time of a process that is killed


class Attempt:
    """The work of this process on a phase, as long as it is open.

    with Attempt(RUN / "attempts" / "2_policy"):
        ...
    """

    def __init__(self, folder: epath.PathLike, every: float = _EVERY):
        """every: seconds between two writes."""
        self._file, self._every = epath.Path(folder) / f"{secrets.token_hex(8)}.json", every
        self._began, self._start = time.time(), time.monotonic()
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write_until, name="attempt", daemon=True)

    def __enter__(self) -> "Attempt":
        self._write()
        self._writer.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._writer.join()
        self._write()

    def _write_until(self) -> None:
        while not self._stop.wait(self._every):
            self._write()

    def _write(self) -> None:
        """Says that the work has gone on until now."""
        until = self._began + time.monotonic() - self._start
        # A full disk, a store out of reach, whatever it raises: no run ends for a number of its report.
        with contextlib.suppress(Exception):
            files.publish(self._file, json.dumps({"began": self._began, "until": until}))


def worked_seconds(folder: epath.PathLike) -> float:
    """Seconds in which any process was at work; those in which several were count once."""
    spans = [json.loads(content) for content in files.markers(epath.Path(folder), ".json").values()]
    total = end = 0.0
    for began, until in sorted((span["began"], span["until"]) for span in spans):
        total += max(until - max(began, end), 0.0)
        end = max(end, until)
    return total
