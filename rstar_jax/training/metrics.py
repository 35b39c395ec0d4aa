"""The metrics of a training as a file that can be read while it runs, and for TensorBoard."""

import json
import time
from collections.abc import Mapping, Sequence

from etils import epath
from tensorboardX import SummaryWriter

from rstar_jax import files, json_lines

_EVERY = 15.0  # seconds between two writes


class MetricsWriter:
    """FOLDER/metrics.jsonl, {"step", name: value, ...} a line, and FOLDER/tensorboard of a folder on a disk.

    A training that goes on from a step writes that step and what follows anew.
    """

    def __init__(self, folder: epath.PathLike, first: int = 0):
        self._file = epath.Path(folder) / "metrics.jsonl"
        self._rows: list[dict[str, float]] = []
        if files.exists(self._file):
            self._rows = [row for _, _, row in json_lines.read(self._file) if row["step"] < first]
        local = "://" not in str(folder)
        self._board = SummaryWriter(str(epath.Path(folder) / "tensorboard"), purge_step=first) if local else None
        self._written = time.monotonic()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The metrics of a step."""
        self._rows.append({"step": step, **values})
        for name, value in values.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        if time.monotonic() - self._written >= _EVERY:
            self._write()

    def complete(self, history: Sequence[Mapping[str, float]]) -> None:
        """Adds the steps that were lost with a process that was killed; of these the speeds are not known."""
        known = {row["step"]: row for row in self._rows}
        self._rows = [known.get(step, {"step": step, **values}) for step, values in enumerate(history)]

    def _write(self) -> None:
        files.publish(self._file, "".join(json.dumps(row) + "\n" for row in self._rows))
        self._written = time.monotonic()

    def close(self) -> None:
        """Writes what is not written yet."""
        self._write()
        if self._board is not None:
            self._board.close()
