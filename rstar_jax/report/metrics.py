"""Reads the numbers of a run: RUN/metrics.jsonl, one JSON object a line."""

import dataclasses
import json
from collections.abc import Iterable, Iterator

from etils import epath

CONTROL = "control_"  # before the names of the control's numbers
SCALING = "scaling_"  # before the names of selection rules: accuracy by trajectories

_OPTIONAL = {"split": str, "level": str, "source": str, "phase": str, "step": int, "kind": str, "trajectories": int}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One line of the file. Without `level`, `source` and `kind` (of pairs) it is the mean over the frontier levels.

    trajectories: searches a problem, of a point of a scaling curve.
    """

    round: int
    name: str
    value: float
    split: str | None = None
    level: str | None = None
    source: str | None = None
    phase: str | None = None
    step: int | None = None
    kind: str | None = None
    trajectories: int | None = None


class Metrics:
    """The numbers of a run. Of lines that differ in nothing but their value the last counts: it was measured again."""

    def __init__(self, metrics: Iterable[Metric]):
        self._metrics = {dataclasses.replace(metric, value=0.0): metric for metric in metrics}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics.values())

    def named(self, name: str) -> list[Metric]:
        """The numbers of one name in the order of the file."""
        return [metric for metric in self if metric.name == name]

    def get(
        self, name: str, round: int, split: str, *, level: str | None = None, source: str | None = None
    ) -> Metric | None:
        """One number, None if it was not measured."""
        key = Metric(round=round, name=name, value=0.0, split=split, level=level, source=source)
        return self._metrics.get(key)

    def rounds(self) -> list[int]:
        """The rounds that have any number."""
        return sorted({metric.round for metric in self})


def read_metrics(path: epath.PathLike) -> Metrics:
    """The numbers of the file, none if it is not there yet.

    Raises: ValueError that names file and line if a line is not a number of a run.
    """
    path = epath.Path(path)
    if not path.exists():
        return Metrics([])
    metrics = []
    # Not splitlines(): it also splits at characters that JSON strings may hold.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                metrics.append(_metric(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return Metrics(metrics)


def _metric(line: str) -> Metric:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a JSON object, got {line[:80]!r} ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, got {line[:80]!r}")
    required = {name: _field(record, name, kind) for name, kind in (("round", int), ("name", str), ("value", float))}
    optional = {name: _field(record, name, kind) for name, kind in _OPTIONAL.items() if record.get(name) is not None}
    return Metric(**required, **optional)


def _field(record: dict, name: str, kind: type) -> int | float | str:
    if name not in record:
        raise ValueError(f"{name!r} is missing")
    value = record[name]
    wanted = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"{name!r} must be {kind.__name__}, got {value!r}")
    return kind(value)
