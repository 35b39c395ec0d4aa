"""The numbers of a run as tables of text: the headline, one row a round, one row a level or family."""

import dataclasses
import math
from collections.abc import Sequence

from rstar_jax.report.metrics import CONTROL, Metrics

HELD_OUT = ("heldout",)
MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table of rounds. splits: where its number is looked for, the first that has it."""

    title: str
    name: str
    splits: tuple[str, ...]
    explanation: str


COLUMNS = (
    Column("greedy", "greedy_accuracy", HELD_OUT, "the policy alone, one answer at temperature 0"),
    Column("majority@8", "majority_accuracy", HELD_OUT, "the most frequent of 8 independent samples"),
    Column("search@8", "search_accuracy", HELD_OUT, "the PPM's choice of 8 searched trajectories"),
    Column("pass@8", "pass_at_8", HELD_OUT, "at least one of 8 independent samples is right"),
    Column("PPM pairs", "ppm_pair_accuracy", ("heldout", "train"), "preference pairs that the PPM puts in order"),
    Column("false positives", "false_positive_share", ("heldout", "train"), "right answers that came by a wrong way"),
    Column("solved", "solved_share", ("train",), "training problems with a right answer in their tree"),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number as text. note: what sets it apart from its column, such as another split."""

    text: str = MISSING
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    title: str
    cells: tuple[Cell, ...]
    is_control: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """columns: (title, explanation) of each column after the row titles."""

    caption: str
    corner: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Tile:
    """One number of the headline."""

    title: str
    value: str
    explanation: str


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "not finite"


def seconds(value: float) -> str:
    """A duration, whole seconds from ten on."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def round_title(round: int) -> str:
    """The name of a round: 0 is the bootstrap."""
    return "0 (bootstrap)" if round == 0 else str(round)


def headline(metrics: Metrics) -> list[Tile]:
    """Greedy before and after; the control, search and majority of the last round that measured them."""
    greedy = _by_round(metrics, "greedy_accuracy")
    tiles = []
    if greedy:
        first, last = min(greedy), max(greedy)
        if first == last:
            tiles.append(Tile("greedy", percent(greedy[first]), f"round {first}"))
        else:
            value = f"{percent(greedy[first])} → {percent(greedy[last])}"
            tiles.append(Tile("greedy", value, f"before → after: rounds {first} and {last}"))
    for title, name, explanation in (
        ("control", CONTROL + "greedy_accuracy", "greedy, of the control policy"),
        ("search@8", "search_accuracy", "the PPM's choice of 8 trajectories"),
        ("majority@8", "majority_accuracy", "as many independent samples"),
    ):
        values = _by_round(metrics, name)
        if values:
            tiles.append(Tile(title, percent(values[max(values)]), f"{explanation}, round {max(values)}"))
    return tiles


def round_table(metrics: Metrics) -> Table | None:
    """One row a round and one for the control; None without a number."""
    rounds = metrics.rounds()
    if not rounds:
        return None
    rows = [
        Row(round_title(round), (*(_cell(metrics, column, round) for column in COLUMNS), _seconds_cell(metrics, round)))
        for round in rounds
    ]
    control = _control_row(metrics)
    columns = tuple((column.title, column.explanation) for column in COLUMNS)
    return Table(
        "Means over the frontier levels, on held-out problems where nothing else is said",
        "round",
        (*columns, ("seconds", "all phases of the round")),
        (*rows, control) if control else tuple(rows),
    )


def group_table(metrics: Metrics, group: str) -> Table | None:
    """One row a `level` or `family`; None if nothing was measured by it."""
    other = {"level": "family", "family": "level"}[group]
    shown = {"greedy_accuracy", "search_accuracy", CONTROL + "greedy_accuracy"}
    found = [
        metric
        for metric in metrics
        if metric.name in shown
        and metric.split in HELD_OUT
        and getattr(metric, group) is not None
        and getattr(metric, other) is None
    ]
    if not found:
        return None
    rounds = sorted({metric.round for metric in found if metric.name == "greedy_accuracy"})
    wanted = [("greedy_accuracy", round, f"greedy, round {round}") for round in rounds]
    for name, title in ((CONTROL + "greedy_accuracy", "control"), ("search_accuracy", "search@8")):
        measured = [metric.round for metric in found if metric.name == name]
        if measured:
            wanted.append((name, max(measured), f"{title}, round {max(measured)}"))
    rows = []
    for member in sorted({getattr(metric, group) for metric in found}):
        values = [metrics.get(name, round, HELD_OUT, **{group: member}) for name, round, _ in wanted]
        rows.append(Row(str(member), tuple(Cell(percent(value.value)) if value else Cell() for value in values)))
    return Table(f"Held-out accuracy by {group}", group, tuple((title, "") for *_, title in wanted), tuple(rows))


def phase_seconds(metrics: Metrics) -> dict[str, dict[int, float]]:
    """Seconds by phase, in the order in which phases were first seen, and round."""
    phases: dict[str, dict[int, float]] = {}
    for metric in metrics.named("phase_seconds"):
        in_rounds = phases.setdefault(metric.phase or "unnamed", {})
        in_rounds[metric.round] = in_rounds.get(metric.round, 0.0) + metric.value
    return phases


def _by_round(metrics: Metrics, name: str) -> dict[int, float]:
    values = ((round, metrics.get(name, round, HELD_OUT)) for round in metrics.rounds())
    return {round: metric.value for round, metric in values if metric}


def _cell(metrics: Metrics, column: Column, round: int, prefix: str = "") -> Cell:
    metric = metrics.get(prefix + column.name, round, column.splits)
    if metric is None:
        return Cell()
    return Cell(percent(metric.value), "" if metric.split == column.splits[0] else f"{metric.split}")


def _seconds_cell(metrics: Metrics, round: int) -> Cell:
    spent = [in_rounds[round] for in_rounds in phase_seconds(metrics).values() if round in in_rounds]
    return Cell(seconds(sum(spent))) if spent else Cell()


def _control_row(metrics: Metrics) -> Row | None:
    measured: Sequence[int] = [metric.round for metric in metrics if metric.name.startswith(CONTROL)]
    if not measured:
        return None
    cells = tuple(_cell(metrics, column, max(measured), CONTROL) for column in COLUMNS)
    return Row(f"control, round {max(measured)}", (*cells, Cell()), is_control=True)
