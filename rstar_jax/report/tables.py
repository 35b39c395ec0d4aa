"""The numbers of a run as tables of text: the headline, one row a round, one row a level or source."""

import dataclasses
import math
import re
from collections.abc import Sequence

from rstar_jax.problems.problem import level_order
from rstar_jax.report.metrics import CONTROL, SCALING, Metric, Metrics

HELD_OUT = "heldout"
TRAIN = "train"
MISSING = "–"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table of rounds: the number `name` on the problems of `split`."""

    title: str
    name: str
    split: str
    explanation: str
    is_share: bool = True


def columns(k: int) -> tuple[Column, ...]:
    """What is shown of each round. k: samples a problem of majority and pass@k."""
    return (
        Column("greedy", "greedy_accuracy", HELD_OUT, "the policy's most likely solution"),
        Column(f"majority@{k}", "majority_accuracy", HELD_OUT, f"the most frequent answer of {k} independent samples"),
        Column(
            f"best of {k}", "best_of_n_accuracy", HELD_OUT, f"the one of {k} independent samples that the PPM chooses"
        ),
        Column("search", "search_accuracy", HELD_OUT, "the answer that the PPM chooses from a test-time search"),
        Column(
            "majority, equal tokens",
            "equal_tokens_majority_accuracy",
            HELD_OUT,
            "the most frequent answer of as many samples as cost the tokens of that search",
        ),
        Column(f"pass@{k}", f"pass_at_{k}", HELD_OUT, f"at least one of {k} independent samples is right"),
        Column("PPM pairs", "ppm_pair_accuracy", HELD_OUT, "preference pairs of which the PPM prefers the better side"),
        Column("solved", "solved_share", TRAIN, "training problems with a right answer in their tree"),
        Column(
            "trajectories", "trajectories", TRAIN, "correct trajectories that the policy learns from", is_share=False
        ),
        Column("false positives", "false_positive_share", TRAIN, "of these trajectories, those by a wrong program"),
        Column("pairs", "preference_pairs", TRAIN, "preference pairs that the PPM learns from", is_share=False),
    )


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: its title and a text for each column."""

    title: str
    cells: tuple[str, ...]
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


def with_error(metric: Metric) -> str:
    """A share with its standard error, where that is known: "75.0 ± 3.1 %"."""
    error = "" if metric.error is None else f" ± {100 * metric.error:.1f}"
    return percent(metric.value).replace(" %", f"{error} %")


def with_cost(metric: Metric) -> str:
    """The same, and the tokens a problem that it took."""
    return with_error(metric) + ("" if metric.tokens is None else f", {metric.tokens:,.0f} tokens")


def seconds(value: float) -> str:
    """A duration, whole seconds from ten on."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def samples(metrics: Metrics) -> int:
    """The k of pass@k as measured; 8, the paper's, before it was."""
    found = [re.fullmatch(r"pass_at_(\d+)", metric.name) for metric in metrics]
    return max((int(match[1]) for match in found if match), default=8)


def round_title(round: int) -> str:
    """The name of a round: 0 is the bootstrap."""
    return "0 (bootstrap)" if round == 0 else str(round)


def headline(metrics: Metrics) -> list[Tile]:
    """Greedy before and after; the control, search and majority of the last round that measured them."""
    greedy = by_round(metrics, "greedy_accuracy")
    k = samples(metrics)
    tiles = []
    if greedy:
        first, last = min(greedy), max(greedy)
        if first == last:
            tiles.append(Tile("greedy", with_error(greedy[first]), f"round {first}"))
        else:
            value = f"{percent(greedy[first].value)} → {with_error(greedy[last])}"
            tiles.append(Tile("greedy", value, f"before → after: rounds {first} and {last}"))
    for title, name, explanation in (
        ("control", CONTROL + "greedy_accuracy", "greedy, after as many steps on the bootstrap's examples alone"),
        ("search", "search_accuracy", "the PPM's choice from a search"),
        (f"majority@{k}", "majority_accuracy", f"the vote of {k} independent samples"),
    ):
        measured = by_round(metrics, name)
        if measured:
            last = measured[max(measured)]
            tiles.append(Tile(title, with_error(last), f"{explanation}, round {last.round}"))
    return tiles


def coverage_table(metrics: Metrics) -> Table | None:
    """One row a round, one column a level: what search solved of the round's problems (paper: Table 2)."""
    found = [metric for metric in metrics.named("solved_share") if metric.split == TRAIN and metric.level is not None]
    if not found:
        return None
    levels = sorted({metric.level for metric in found}, key=level_order)
    rows = []
    for round in sorted({metric.round for metric in found}):
        values = [metrics.get("solved_share", round, TRAIN, level=level) for level in levels]
        rows.append(Row(str(round), tuple(percent(value.value) if value else MISSING for value in values)))
    return Table(
        "Coverage: the training problems of each level that a search solved",
        "round",
        tuple((f"level {level}", "") for level in levels),
        tuple(rows),
    )


def round_table(metrics: Metrics) -> Table | None:
    """One row a round and one for the control; None without a number."""
    rounds = metrics.rounds()
    if not rounds:
        return None
    shown = columns(samples(metrics))
    rows = [
        Row(round_title(round), (*(_cell(metrics, column, round) for column in shown), _seconds_cell(metrics, round)))
        for round in rounds
    ]
    control = _control_row(metrics, shown)
    return Table(
        f"Means over {_levels(metrics)} ± standard errors, tokens a problem: first on held-out problems, then what the "
        "round learned from",
        "round",
        (*((column.title, column.explanation) for column in shown), ("seconds", "all phases of the round")),
        (*rows, control) if control else tuple(rows),
    )


def group_table(metrics: Metrics, group: str) -> Table | None:
    """One row a `level` or `source`; None if nothing was measured by it."""
    other = {"level": "source", "source": "level"}[group]
    shown = {"greedy_accuracy", "search_accuracy", CONTROL + "greedy_accuracy"}
    found = [
        metric
        for metric in metrics
        if metric.name in shown
        and metric.split == HELD_OUT
        and getattr(metric, group) is not None
        and getattr(metric, other) is None
    ]
    if not found:
        return None
    rounds = sorted({metric.round for metric in found if metric.name == "greedy_accuracy"})
    wanted = [("greedy_accuracy", round, f"greedy, round {round}") for round in rounds]
    for name, title in ((CONTROL + "greedy_accuracy", "control"), ("search_accuracy", "search")):
        measured = [metric.round for metric in found if metric.name == name]
        if measured:
            wanted.append((name, max(measured), f"{title}, round {max(measured)}"))
    rows = []
    for member in sorted({getattr(metric, group) for metric in found}, key=level_order):
        values = [metrics.get(name, round, HELD_OUT, **{group: member}) for name, round, _ in wanted]
        rows.append(Row(member, tuple(with_error(value) if value else MISSING for value in values)))
    return Table(f"Held-out accuracy by {group}", group, tuple((title, "") for *_, title in wanted), tuple(rows))


def benchmark_table(metrics: Metrics) -> Table | None:
    """One row a benchmark: greedy by round, then what the last round has besides; None for a run with one benchmark."""
    if len(metrics.benchmarks) < 2:
        return None
    shown = [(f"greedy, round {round}", "greedy_accuracy", round) for round in metrics.rounds()]
    for column in columns(samples(metrics))[1:6]:
        measured = [own for each in metrics.benchmarks.values() for own in by_round(each, column.name)]
        if measured:
            shown.append((f"{column.title}, round {max(measured)}", column.name, max(measured)))
    found = {
        name: [own.get(number, round, HELD_OUT) for _, number, round in shown]
        for name, own in metrics.benchmarks.items()
    }
    kept = [place for place in range(len(shown)) if any(row[place] for row in found.values())]
    rows = [
        Row(name, tuple(with_error(row[place]) if row[place] else MISSING for place in kept))
        for name, row in found.items()
    ]
    return Table("Benchmarks", "benchmark", tuple((shown[place][0], "") for place in kept), tuple(rows))


def scaling_table(metrics: Metrics) -> Table | None:
    """One row a selection rule, one column a number of trajectories, of the last round that has a scaling curve."""
    found = [metric for metric in metrics if metric.name.startswith(SCALING) and metric.trajectories]
    if not found:
        return None
    last = max(metric.round for metric in found)
    values = {(metric.name, metric.trajectories): metric for metric in found if metric.round == last}
    sizes = sorted({size for _, size in values})
    rows = [
        Row(name.removeprefix(SCALING).replace("_", " "), tuple(with_error(values[name, size]) for size in sizes))
        for name in dict.fromkeys(name for name, _ in values)
    ]
    caption = f"Held-out accuracy of round {last} by trajectories, for each rule that chooses an answer from theirs"
    return Table(caption, "trajectories", tuple((str(size), "") for size in sizes), tuple(rows))


def gains_table(metrics: Metrics) -> Table | None:
    """One row a paired difference of accuracies, of the last round that has any."""
    found = [metric for metric in metrics if " - " in metric.name]
    if not found:
        return None
    last = max(metric.round for metric in found)
    rows = [Row(own.name.replace("_", " "), (with_error(own), f"{own.n or 0:,}")) for own in found if own.round == last]
    caption = f"Round {last}: differences of held-out accuracies, problem by problem"
    return Table(caption, "difference", (("points", ""), ("problems", "")), tuple(rows))


def phase_seconds(metrics: Metrics) -> dict[str, dict[int, float]]:
    """Seconds by phase, in the order in which phases were first seen, and round.

    Parts of a phase, such as `search_2` or `evaluate_control`, count as the phase.
    """
    phases: dict[str, dict[int, float]] = {}
    for metric in metrics.named("phase_seconds"):
        in_rounds = phases.setdefault((metric.phase or "unnamed").split("_")[0], {})
        in_rounds[metric.round] = in_rounds.get(metric.round, 0.0) + metric.value
    return phases


def by_round(metrics: Metrics, name: str, level: str | None = None) -> dict[int, Metric]:
    """A number on held-out problems by round, without the rounds that have not measured it."""
    found = ((round, metrics.get(name, round, HELD_OUT, level=level)) for round in metrics.rounds())
    return {round: metric for round, metric in found if metric}


def _cell(metrics: Metrics, column: Column, round: int, prefix: str = "") -> str:
    metric = metrics.get(prefix + column.name, round, column.split)
    if metric is None:
        return MISSING
    return with_cost(metric) if column.is_share else f"{metric.value:,.0f}"


def _levels(metrics: Metrics) -> str:
    found = {metric.levels for metric in metrics if metric.levels}
    return f"levels {', '.join(sorted(found))}" if found else "all problems"


def _seconds_cell(metrics: Metrics, round: int) -> str:
    spent = [in_rounds[round] for in_rounds in phase_seconds(metrics).values() if round in in_rounds]
    return seconds(sum(spent)) if spent else MISSING


def _control_row(metrics: Metrics, shown: Sequence[Column]) -> Row | None:
    names = {CONTROL + column.name for column in shown}
    measured = [metric.round for metric in metrics if metric.name in names]
    if not measured:
        return None
    cells = tuple(_cell(metrics, column, max(measured), CONTROL) for column in shown)
    return Row(f"control, round {max(measured)}", (*cells, MISSING), is_control=True)
