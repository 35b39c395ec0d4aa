"""Reads the numbers of a run: they lie in the markers of its phases, RUN/done/PHASE.json, as rows."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from rstar_jax import files, json_lines

CONTROL = "control_"  # before the names of the control's numbers
SCALING = "scaling_"  # before the names of selection rules: accuracy by trajectories

_OPTIONAL = {
    "split": str,
    "level": str,
    "source": str,
    "phase": str,
    "benchmark": str,
    "step": int,
    "kind": str,
    "trajectories": int,
    "levels": str,
    "n": int,
    "error": float,
    "tokens": float,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One row. Without `level`, `levels`, `source` and `kind` (of pairs) it is the mean over all problems.

    trajectories: searches a problem, of a point of a scaling curve. levels: those of the headline, whose mean it is; it
    stands behind the mean over all and is shown in its place. n, error: problems, and the standard error of their mean.
    tokens: sampled a problem. benchmark: the held-out problems that were measured, where a run has several.
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
    levels: str | None = dataclasses.field(default=None, compare=False)
    n: int | None = dataclasses.field(default=None, compare=False)
    error: float | None = dataclasses.field(default=None, compare=False)
    tokens: float | None = dataclasses.field(default=None, compare=False)
    benchmark: str | None = dataclasses.field(default=None, compare=False)


class Metrics:
    """The numbers of a run. Of rows of one name, round and level the last counts: the headline, or measured again.

    Held-out numbers are those of the first benchmark. benchmarks: {name: the numbers of one}, the first among them.
    """

    def __init__(self, metrics: Iterable[Metric]):
        metrics = list(metrics)
        names = dict.fromkeys(metric.benchmark for metric in metrics if metric.benchmark)
        first = next(iter(names), None)
        self._metrics = {
            dataclasses.replace(metric, value=0.0): metric for metric in metrics if metric.benchmark in (None, first)
        }
        self.benchmarks: dict[str, Metrics] = {first: self} if first else {}
        for name in list(names)[1:]:
            own = (dataclasses.replace(metric, benchmark=None) for metric in metrics if metric.benchmark == name)
            self.benchmarks[name] = Metrics(own)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics.values())

    def named(self, name: str) -> list[Metric]:
        """The numbers of one name in the order of phases."""
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


def read_metrics(run_dir: epath.PathLike) -> Metrics:
    """The numbers of the phases that are done, in the order of phases; none if none is.

    Raises: ValueError that names marker and row if a row is not a number of a run.
    """
    folder = epath.Path(run_dir) / "done"
    phases = []
    for name, content in files.markers(folder, ".json").items():
        marker = json_lines.value(content.decode("utf-8", "replace"), str(folder / name), digits=False)
        if not isinstance(marker, dict) or not isinstance(marker.get("rows"), list):
            raise ValueError(f"{folder / name}: expected a marker with rows")
        phases.append((marker.get("place", 0), name, marker["rows"]))
    metrics = []
    for _, name, rows in sorted(phases):
        for number, row in enumerate(rows, start=1):
            try:
                metrics.append(_metric(row))
            except ValueError as error:
                raise ValueError(f"{folder / name}, row {number}: {error}") from error
    return Metrics(metrics)


def _metric(row: Any) -> Metric:
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, got {row!r:.80}")
    required = {name: _field(row, name, kind) for name, kind in (("round", int), ("name", str), ("value", float))}
    optional = {name: _field(row, name, kind) for name, kind in _OPTIONAL.items() if row.get(name) is not None}
    return Metric(**required, **optional)


def _field(record: dict, name: str, kind: type) -> int | float | str:
    if name not in record:
        raise ValueError(f"{name!r} is missing")
    value = record[name]
    wanted = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"{name!r} must be {kind.__name__}, got {value!r}")
    return kind(value)
