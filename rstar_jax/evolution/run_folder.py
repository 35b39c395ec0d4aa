"""The run folder: what is there, what is done, and the numbers of the run. A killed run goes on from it.

Every phase leaves a done-marker when all that it wrote stands. The marker holds how many metric rows there were then,
so that the rows of a phase that was cut off are dropped when it is begun again.
"""

import json
from collections.abc import Callable
from typing import Any

from etils import epath

from rstar_jax import files, json_lines


class Metrics:
    """`metrics.jsonl`: one JSON object a line. The file is replaced whole, so it never ends in half a line."""

    def __init__(self, path: epath.Path):
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists() and path.stat().length:
            self.rows = [row for _, _, row in json_lines.read(path)]

    def add(self, *, round: int, name: str, value: float, split: str, **more: Any) -> None:
        """Adds a row; it is on disk after the next `flush`."""
        self.rows.append({"round": round, "name": name, "value": value, "split": split, **more})

    def truncate(self, count: int) -> None:
        """Drops the rows after the first `count`."""
        self.rows = self.rows[:count]

    def flush(self) -> None:
        """Writes all rows."""
        files.publish(self._path, "".join(json.dumps(row) + "\n" for row in self.rows))


class RunFolder:
    """Paths and progress of one run."""

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.metrics = Metrics(self.path / "metrics.jsonl")
        self._done = self.path / "done"

    def check_configuration(self, configuration: str, flag: str = "--run_dir") -> None:
        """Keeps the configuration of a new run; raises ValueError if the folder was made with another one.

        flag: of the command line, which named the folder.
        """
        file = self.path / "config.gin"
        if not file.exists():
            files.publish(file, configuration)
            return
        try:
            kept = file.read_text()
        except UnicodeDecodeError:
            raise ValueError(f"{file}: not a text; remove it if the run is yours") from None
        if kept == configuration:
            return
        before, now = kept.split("\n"), configuration.split("\n")
        changed = [line for line in now if line not in before] + [line for line in before if line not in now]
        raise ValueError(
            f"{file}: this folder was made with another configuration; the first difference is "
            f"{(changed or ['the order of lines'])[0].strip()!r}. Give another {flag}, or the old configuration"
        )

    def log_start(self, **facts: Any) -> None:
        """Adds a line to `starts.jsonl`: on what the run was begun, or went on."""
        file = self.path / "starts.jsonl"
        before = file.read_text() if file.exists() else ""
        files.publish(file, before + json.dumps(facts) + "\n")

    def round(self, number: int) -> epath.Path:
        """The folder of a round; 0 is the bootstrap."""
        return self.path / f"round_{number}"

    def is_done(self, phase: str) -> bool:
        """Whether the phase of this name is done."""
        return (self._done / f"{phase}.json").exists()

    def phase(self, name: str, work: Callable[[], None]) -> bool:
        """Runs `work` unless the phase is done; returns whether it ran. Phases come in the same order in every run."""
        if self.is_done(name):
            return False
        self.metrics.truncate(self._rows_done())
        work()
        self.metrics.flush()
        files.publish(self._done / f"{name}.json", json.dumps({"rows": len(self.metrics.rows)}))
        return True

    def _rows_done(self) -> int:
        if not self._done.exists():
            return 0
        return max((_rows(marker) for marker in self._done.glob("*.json")), default=0)


def _rows(marker: epath.Path) -> int:
    try:
        return int(json.loads(marker.read_text())["rows"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{marker}: expected {{"rows": NUMBER}}; remove it to do its phase again') from None
