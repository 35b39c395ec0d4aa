"""Puts the page together: reads the run folder, draws, fills the template, writes RUN/report/index.html."""

import dataclasses
import re

import jinja2
from etils import epath

from rstar_jax import files
from rstar_jax.report import curves, tables, tree_view
from rstar_jax.report.metrics import Metrics, read_metrics
from rstar_jax.search import storage

_TEMPLATE = "index.html.j2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shown:
    """A picture that was drawn: `name`.png and `name`-dark.png beside the page."""

    name: str
    title: str
    description: str


def report(run_dir: epath.PathLike) -> epath.Path:
    """Writes the page of a run, finished or in progress, and returns its path, RUN/report/index.html.

    The same run folder gives the same bytes. Files appear whole: the pictures first, the page last.

    Raises: FileNotFoundError if there is no such folder; ValueError, with file and line, for malformed metrics.
    """
    run_dir = epath.Path(run_dir)
    if not files.exists(run_dir):
        raise FileNotFoundError(f"no run folder at {run_dir}: --run_dir must name the folder that `rstar evolve` wrote")
    metrics = read_metrics(run_dir)
    groups = [tables.benchmark_table(metrics), tables.gains_table(metrics), tables.scaling_table(metrics)]
    groups += (tables.group_table(metrics, group) for group in ("level", "source"))
    trees = _trees(run_dir)
    folder = run_dir / "report"
    config = run_dir / "config.gin"
    page = _render(
        run=run_dir.name,
        tiles=tables.headline(metrics),
        coverage=tables.coverage_table(metrics),
        round_table=tables.round_table(metrics),
        group_tables=[table for table in groups if table],
        pictures=_draw(metrics, folder),
        trees=trees,
        config=files.read(config).decode() if files.exists(config) else "",
    )
    # The output of programs may hold lone surrogates, which UTF-8 cannot.
    files.publish(folder / "index.html", page.encode("utf-8", "replace"))
    return folder / "index.html"


def _trees(run_dir: epath.Path) -> list[tuple[int, tree_view.TreeView]]:
    """(round, tree) of every round that has trees: of its first pass."""
    found = []
    for name in files.names(run_dir):
        match = re.fullmatch(r"round_(\d+)", name)
        if match:
            tree = tree_view.choose(storage.read_trees(run_dir / name / "trees_1"))
            if tree is not None:
                found.append((int(match[1]), tree_view.view(tree)))
    return sorted(found, key=lambda item: item[0])


def _draw(metrics: Metrics, folder: epath.Path) -> list[_Shown]:
    shown = []
    for picture in curves.PICTURES:
        for theme in curves.THEMES:
            figure = picture.draw(metrics, theme)
            if figure is None:
                break
            suffix = "" if theme is curves.LIGHT else f"-{theme.name}"
            files.publish(folder / f"{picture.name}{suffix}.png", curves.png(figure, theme))
        else:
            shown.append(_Shown(name=picture.name, title=picture.title, description=picture.description))
    return shown


def _render(**content) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rstar_jax.report"),
        autoescape=True,  # models write what stands in trees
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(**content)
