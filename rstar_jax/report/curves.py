"""The pictures of a run: accuracy by round and by level, training losses, seconds by phase, each light and dark.

Accuracies have bars of one standard error over problems.
"""

import dataclasses
import io
import math
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rstar_jax.problems.problem import level_order
from rstar_jax.report.metrics import CONTROL, Metric, Metrics
from rstar_jax.report.tables import HELD_OUT, TRAIN, by_round, phase_seconds, samples

_WIDTH = 8.4  # inches
_DPI = 160


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours that match the page's. The series are from Okabe and Ito's palette: told apart by the colour-blind."""

    name: str
    paper: str
    ink: str
    faint: str
    series: tuple[str, ...]
    sequence: str  # a colour map for things that have an order
    ends: tuple[float, float]  # of the colour map: what the paper swallows is left out


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1b1f24",
    faint="#d5d9de",
    series=("#0072b2", "#d55e00", "#009e73", "#9a5f86", "#56b4e9", "#e69f00", "#8c96a3"),
    sequence="cividis",
    ends=(0.0, 0.85),
)
DARK = Theme(
    name="dark",
    paper="#16191d",
    ink="#e6e8eb",
    faint="#3a4048",
    series=("#56b4e9", "#ee8a3a", "#2fc79b", "#cc79a7", "#f0e442", "#8aa4ff", "#8c96a3"),
    sequence="cividis",
    ends=(0.4, 1.0),
)
THEMES = (LIGHT, DARK)

_LOSSES = {"policy_loss": "policy", CONTROL + "loss": "control", "ppm_loss": "PPM"}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture and what it shows. `draw` gives None when there is nothing to draw yet."""

    name: str
    title: str
    description: str
    draw: Callable[[Metrics, Theme], Figure | None]


def draw_accuracy(metrics: Metrics, theme: Theme) -> Figure | None:
    """Held-out accuracy by round, the control dashed."""
    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    axes = figure.add_subplot()
    if not _accuracy_lines(axes, metrics, theme):
        return None
    _style(axes, theme)
    _share_axis(axes, metrics)
    axes.set_xlabel("round (0 = bootstrap)")
    _legend(figure, axes, theme)
    return figure


def draw_levels(metrics: Metrics, theme: Theme) -> Figure | None:
    """The same, one small panel a level."""
    names = {"greedy_accuracy", "search_accuracy", CONTROL + "greedy_accuracy"}
    found = [
        metric
        for metric in metrics
        if metric.name in names and metric.split == HELD_OUT and metric.level is not None and metric.source is None
    ]
    levels = sorted({metric.level for metric in found}, key=level_order)
    if not levels:
        return None
    columns = min(4, len(levels))
    rows = math.ceil(len(levels) / columns)
    figure = Figure(figsize=(_WIDTH, 0.5 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    fullest: Axes = panels[0][0]
    for panel, level in zip(panels.flat, levels, strict=False):
        _accuracy_lines(panel, metrics, theme, level)
        _style(panel, theme)
        _share_axis(panel, metrics)
        panel.set_title(f"level {level}", loc="left", color=theme.ink, fontsize=9)
        if len(panel.get_lines()) > len(fullest.get_lines()):
            fullest = panel
    for panel in panels.flat[len(levels) :]:
        panel.set_axis_off()
    for index in range(columns):
        panels.flat[len(levels) - 1 - index].tick_params(labelbottom=True)
    figure.supxlabel("round", color=theme.ink, fontsize=9)
    _legend(figure, fullest, theme)
    return figure


def draw_losses(metrics: Metrics, theme: Theme) -> Figure | None:
    """The losses of policy and PPM by step, one line a round."""
    names = [name for name in _LOSSES if any(metric.step is not None for metric in metrics.named(name))]
    if not names:
        return None
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    last_round = max(metric.round for name in names for metric in metrics.named(name))
    fullest = panels[0]
    for panel, name in zip(panels, names, strict=True):
        _loss_lines(panel, metrics, theme, name, last_round)
        _style(panel, theme)
        panel.set_title(_LOSSES[name], loc="left", color=theme.ink, fontsize=9)
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if len(panel.get_lines()) > len(fullest.get_lines()):
            fullest = panel
    _legend(figure, fullest, theme)
    return figure


def draw_seconds(metrics: Metrics, theme: Theme) -> Figure | None:
    """Seconds by round, one colour a phase."""
    phases = phase_seconds(metrics)
    if not phases:
        return None
    rounds = sorted({round for in_rounds in phases.values() for round in in_rounds})
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.38 * len(rounds)), layout="constrained")
    axes = figure.add_subplot()
    left = dict.fromkeys(rounds, 0.0)
    hatches = ("", "////", "....")
    for index, (phase, in_rounds) in enumerate(phases.items()):
        widths = [in_rounds.get(round, 0.0) for round in rounds]
        color = theme.series[index % len(theme.series)]
        hatch = hatches[index // len(theme.series) % len(hatches)]
        starts = [left[round] for round in rounds]
        names = [str(round) for round in rounds]
        axes.barh(names, widths, left=starts, label=phase, color=color, edgecolor=theme.paper, hatch=hatch, height=0.7)
        left.update((round, left[round] + width) for round, width in zip(rounds, widths, strict=True))
    _style(axes, theme, grid="x")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_ylabel("round")
    _legend(figure, axes, theme)
    return figure


PICTURES = (
    Picture(
        "accuracy",
        "Accuracy by round",
        "Held-out accuracy of the headline's problems by round, with standard errors",
        draw_accuracy,
    ),
    Picture(
        "levels", "Accuracy by level", "Held-out accuracy by round with standard errors, one panel a level", draw_levels
    ),
    Picture("losses", "Training losses", "Training loss by step, one line a round", draw_losses),
    Picture("seconds", "Where the time goes", "Seconds of each round by phase", draw_seconds),
)


def png(figure: Figure, theme: Theme) -> bytes:
    """The picture as a PNG: the same bytes for the same numbers."""
    figure.set_facecolor(theme.paper)
    figure.set_dpi(_DPI)
    buffer = io.BytesIO()
    # Without the note which version of matplotlib drew it.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _accuracy_lines(axes: Axes, metrics: Metrics, theme: Theme, level: str | None = None) -> bool:
    """Draws what was measured, of a level fewer kinds than of the mean; says whether there was anything."""
    k = samples(metrics)
    kinds = [("search_accuracy", "search", 1, "s"), ("greedy_accuracy", "greedy", 0, "o")]
    if level is None:
        kinds[:0] = [(f"pass_at_{k}", f"pass@{k}", 2, "^")]
        kinds[2:2] = [("majority_accuracy", f"majority@{k}", 3, "D")]
    for name, label, color, marker in kinds:
        points = by_round(metrics, name, level)
        if points:
            style = {
                "color": theme.series[color],
                "linewidth": 1.8,
                "marker": marker,
                "markersize": 5 if marker == "o" else 7,
            }
            _plot(axes, points, label=label, **style)
    control = by_round(metrics, CONTROL + "greedy_accuracy", level)
    if control:
        # The control begins from the bootstrap's policy.
        start = by_round(metrics, "greedy_accuracy", level).get(0)
        control = ({0: start} if start else {}) | control
        style = {"color": theme.ink, "linestyle": (0, (4, 2)), "linewidth": 1.4, "marker": "o", "markersize": 5}
        _plot(axes, control, label="control (greedy)", markerfacecolor=theme.paper, **style)
    return bool(axes.get_lines())


def _plot(axes: Axes, points: dict[int, Metric], **style) -> None:
    """A line through the values, with their standard errors where these are known."""
    values = [metric.value for metric in points.values()]
    errors = [math.nan if metric.error is None else metric.error for metric in points.values()]
    axes.errorbar(list(points), values, yerr=errors, elinewidth=1.0, capsize=0, clip_on=False, **style)


def _loss_lines(axes: Axes, metrics: Metrics, theme: Theme, name: str, last_round: int) -> None:
    series: dict[tuple[int, bool, str, str], list[tuple[int, float]]] = {}
    for metric in metrics.named(name):
        if metric.step is not None:
            key = (metric.round, metric.split != TRAIN, metric.phase or "", metric.split or "")
            series.setdefault(key, []).append((metric.step, metric.value))
    seen: set[int] = set()
    low, high = theme.ends
    for key in sorted(series):
        round, _, phase, split = key
        color = matplotlib.colormaps[theme.sequence](low + (high - low) * (round / last_round if last_round else 1.0))
        label, style = f"round {round}", "-"
        if round in seen:  # another phase or split of the round
            label, style = f"{label}, {phase} {split}".rstrip(), (0, (4, 2))
        seen.add(round)
        axes.plot(*zip(*sorted(series[key]), strict=True), color=color, linewidth=1.6, label=label, linestyle=style)


def _share_axis(axes: Axes, metrics: Metrics) -> None:
    first, last = metrics.rounds()[0], metrics.rounds()[-1]
    axes.set_xlim(first - 0.15, max(last, first + 1) + 0.15)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _style(axes: Axes, theme: Theme, grid: str = "y") -> None:
    axes.set_facecolor(theme.paper)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=theme.faint, linewidth=0.7)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(theme.ink)
        text.set_fontsize(9)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.faint)


def _legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(6, len(labels))
    place = {"loc": "outside upper left", "ncols": columns, "frameon": False}
    figure.legend(handles, labels, fontsize=9, labelcolor=theme.ink, **place)
