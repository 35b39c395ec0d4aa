"""The modes of the command line that need models, each on the models of a run and on files of the run or of a user."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from rich.table import Table

from rstar_jax import configuration, evaluation, files, models
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import EvolutionConfig, WorldConfig
from rstar_jax.evolution.evolve import evolve as run_evolution
from rstar_jax.evolution.forecast import forecast
from rstar_jax.evolution.plan import digest
from rstar_jax.evolution.run import benchmark_set, problems_folder
from rstar_jax.evolution.run_folder import RunFolder, Worker
from rstar_jax.evolution.world import open_world
from rstar_jax.problems import Problem, named
from rstar_jax.problems.problem import level_order
from rstar_jax.problems.sources import Source
from rstar_jax.problems.stored import StoredProblems
from rstar_jax.report import report as write_report
from rstar_jax.search import Tree, missing_shards, read_shard, write_shard


def evolve(
    *,
    config: EvolutionConfig,
    run_dir: str,
    redo: str | None,
    phase: str | None,
    worker: str | None,
    dry_run: bool,
) -> None:
    """All rounds; prints the path of the report as its last line.

    worker: "3/8", one of several processes that share the run. phase: the only one that is done.
    dry_run: prints what there is to do, and does nothing.
    """
    process = Worker.parse(worker)
    if dry_run:
        for shown in forecast(config, run_dir):
            progress.output.print(shown)
        return
    print(run_evolution(config, run_dir, redo=redo, phase=phase, worker=process))


def status(*, run_dir: str) -> None:
    """What of a run is done, with its seconds, what was begun, and what is left."""
    table = Table("phase", "", "seconds")
    for name, state, seconds in RunFolder(run_dir).status():
        table.add_row(name, state, "" if seconds is None else f"{seconds:.1f}")
    progress.output.print(table)


def report(*, run_dir: str) -> None:
    """The pages of a run folder; prints their path."""
    print(write_report(run_dir))


def search(
    *, config: EvolutionConfig, run_dir: str, policy: str | None, ppm: str | None, problems: str | None, output: str
) -> None:
    """Test-time search: writes the trees and `answers.jsonl` ({"id", "question", "answer"} a line) into `output`.

    policy, ppm: model folders or names on the hub; by default the last of the run, both of one round. A search that was
    killed goes on with the shards of trees that are missing in `output`; a folder that another configuration, model or
    problem file has begun is refused.
    """
    # From here on nothing in this process knows an answer.
    asked = _problems(run_dir, problems).read(blind=True)
    folder, (policy, ppm) = epath.Path(output), _models(run_dir, policy, ppm)
    if ppm is None:
        raise ValueError("--ppm: expected a model folder: a search at test time is led by a PPM")
    settings, total = config.evaluation.search, config.shards
    own = {"search": settings, "shards": total, "dtype": config.evaluation.dtype}
    _begin(folder, "searched", own, config, policy, ppm, asked)
    with open_world(config) as world:
        dtype = config.evaluation.dtype
        judge = models.load_preference(ppm, world.mesh, dtype, config.value_scale)
        bench = world.bench(models.load(policy, world.mesh, dtype), judge, config)
        for shard in missing_shards(folder / "trees", total):
            name = f"search, {shard + 1} of {total}"
            found = settings.searched(asked[shard::total], bench, name)
            write_shard(folder / "trees", shard, total, itertools.chain.from_iterable(found))
        trees: list[list[Tree]] = [[]] * len(asked)
        for shard in range(total):
            own, each = read_shard(folder / "trees", shard, total), settings.trees
            trees[shard::total] = [own[i : i + each] for i in range(0, len(own), each)]
        answers = evaluation.search_answers(trees, world.grader, settings.vote)
    lines = [
        json.dumps({"id": problem.id, "question": problem.question, "answer": answer})
        for problem, answer in zip(asked, answers, strict=True)
    ]
    files.publish(folder / "answers.jsonl", "".join(line + "\n" for line in lines))
    print(folder / "answers.jsonl")


def evaluate(
    *,
    config: WorldConfig,
    run_dir: str,
    policy: str | None,
    ppm: str | None,
    problems: str | None,
    limit: str | None,
    output: str | None,
) -> None:
    """All measurements of the configuration on problems with answers: a table.

    policy, ppm: as of `search`; without a PPM there is no search and no best of N. limit: the first so many problems.
    output: a folder for a row a problem and measurement (`rows/`), written as they come, and the table (`table.json`).
    Who was killed goes on there; a folder of another configuration, model or problem set is refused.
    """
    asked = _first(_problems(run_dir, problems).read(), limit)
    settings, (policy, ppm) = config.evaluation, _models(run_dir, policy, ppm)
    folder = None if output is None else epath.Path(output)
    measurements = settings.possible(ppm is not None)
    if left := [own.name for own in settings.measurements if own not in measurements]:
        progress.say(f"left out without a --ppm: {', '.join(left)}")
    with open_world(config) as world:
        loaded = models.load(policy, world.mesh, settings.dtype)
        judge = None
        if ppm is not None:
            judge = models.load_preference(ppm, world.mesh, settings.dtype, config.value_scale)
        bench = world.bench(loaded, judge, config)
        if folder is not None:  # now that the models are there: a name that was mistyped begins no folder
            _begin(folder, "measured", {"evaluation": settings}, config, policy, ppm, asked)
        rows = None if folder is None else folder / "rows"
        measured = evaluation.measure(asked, measurements, bench, rows, settings.piece)
    rows = [row for own in measured.values() for row in evaluation.summarise(own, settings.headline_levels)]
    gains = evaluation.differences(measured, evaluation.minuends(measurements), settings.headline_levels)
    _print_table(rows, f"{len(asked)} problems; ± is a standard error")
    _print_table(gains, "differences, problem by problem")
    _print_scaling(rows)
    if folder is not None:
        where = {"policy": str(policy), "ppm": None if ppm is None else str(ppm), "problems": problems or "heldout"}
        files.publish(folder / "table.json", json.dumps({**where, "rows": rows + gains}, indent=1) + "\n")
        print(folder / "table.json")


def of_run(run_dir: str, name: str, number: int | None = None) -> epath.Path:
    """A model or a data set of a round of the run; of the last that has one, if no round is given."""
    folder = RunFolder(run_dir)
    if number is not None:
        return folder.round(number) / name
    there = [own for own in folder.rounds() if files.exists(folder.round(own) / name)]
    if not there:
        raise FileNotFoundError(f"--run_dir={run_dir}: no round there has a {name}; run `rstar evolve` first")
    return folder.round(there[-1]) / name


def _models(run_dir: str, policy: str | None, ppm: str | None) -> tuple[str, str | None]:
    """The models that were named; where no policy was, those of the run's last round with both, or with a policy."""
    if policy is not None:
        return policy, ppm
    folder = RunFolder(run_dir)
    both = [own for own in folder.rounds() if models.is_model(folder.round(own) / "ppm")]
    if not both:
        return str(of_run(run_dir, "policy")), ppm
    last = folder.round(both[-1])
    return str(last / "policy"), ppm or str(last / "ppm")


def _problems(run_dir: str, name: str | None) -> Source:
    """What `--problems` names, or the problems of the run's first benchmark."""
    if name is not None:
        return named.find(name)
    prefix = benchmark_set("")
    there = [name for name in files.names(problems_folder(run_dir, "")) if name.startswith(prefix)]
    if len(there) != 1:
        told = ", ".join(f"{run_dir}/problems/{own}" for own in there) or "a file, a folder or a set"
        raise FileNotFoundError(f"--problems: not given, and {run_dir} has {len(there)} benchmarks; expected {told}")
    return StoredProblems(problems_folder(run_dir, there[0]))


def _first(problems: Sequence[Problem], limit: str | None) -> list[Problem]:
    if limit is not None and not (limit.isdecimal() and int(limit)):
        raise ValueError(f"--limit={limit}: expected a number of problems, 1 or more")
    return list(problems[: None if limit is None else int(limit)])


def _begin(
    folder: epath.Path,
    done: str,
    own: Mapping[str, Any],
    config: WorldConfig,
    policy: str,
    ppm: str | None,
    asked: Sequence[Problem],
) -> None:
    """Refuses a folder that other settings, models or problems have begun. own: the settings of what is done there."""
    told = hashlib.sha256("\n".join(problem.question for problem in asked).encode()).hexdigest()
    models_ = policy if ppm is None else f"{policy} and {ppm}"
    kind = f"# {done} with {models_}: {len(asked)} problems, {told[:16]}\n"
    settings = {
        **own,
        **config.decisive,
        "few_shot": digest(config.evaluation.few_shot),
        "limits": config.limits,
        "value_scale": config.value_scale,
        "seconds": config.scheduling.seconds,
    }
    lines = (configuration.operative(value, name) for name, value in settings.items())
    RunFolder(folder).check_configuration(kind + "".join(lines), flag="--output")


def _print_scaling(rows: Sequence[dict[str, Any]]) -> None:
    rows = [row for row in rows if "trajectories" in row]
    if not rows:
        return
    sizes = sorted({row["trajectories"] for row in rows})
    for levels in dict.fromkeys(row.get("levels") for row in rows):
        title = "accuracy by selection rule" + (f", levels {levels}" if levels else "")
        table = Table("trees a problem", *map(str, sizes), title=title)
        own = {(row["name"], row["trajectories"]): row for row in rows if row.get("levels") == levels}
        for name in dict.fromkeys(name for name, _ in own):
            table.add_row(name.removeprefix(evaluation.SCALING), *(_with_error(own[name, size]) for size in sizes))
        progress.output.print(table)


def _print_table(rows: Sequence[dict[str, Any]], title: str) -> None:
    """A line a number: its means over all problems, the headline's levels and each level, and what it has cost."""
    rows = [row for row in rows if "trajectories" not in row]
    if not rows:
        return
    levels = sorted({row["level"] for row in rows if "level" in row}, key=level_order)
    leading = next((row["levels"] for row in rows if "levels" in row), None)
    parts = {None: "all"} if any("levels" not in row and "level" not in row for row in rows) else {}
    parts |= {("levels", leading): f"levels {leading}"} if leading else {}
    parts |= {("level", level): f"level {level}" for level in levels}
    costs = [cost for cost in ("tokens", "programs", "undecided") if any(cost in row for row in rows)]
    table = Table("", *parts.values(), *costs, title=title)
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {_part(row): row for row in rows if row["name"] == name}
        whole = next(iter(own.values()))
        cells = [_with_error(own[part]) if part in own else "" for part in parts]
        table.add_row(name, *cells, *(f"{whole[cost]:,.1f}".removesuffix(".0") for cost in costs))
    progress.output.print(table)


def _part(row: dict[str, Any]) -> tuple[str, str] | None:
    return next(((key, row[key]) for key in ("level", "levels") if key in row), None)


def _with_error(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} ± {row['error']:.3f}"
