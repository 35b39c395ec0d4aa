"""`rstar evolve --dry_run`: what there is to do, and what it is expected to cost, with the arithmetic.

A search is expected to expand `steps` nodes in its first rollout, and half as many in each one after it, which leaves
the tree half-way on average: E = steps + (rollouts - 1) * steps / 2 expansions, of `candidates` steps each. Where a
search of the run is done, its tokens an expansion are taken; else what is assumed here.
"""

import dataclasses
from collections.abc import Callable

from etils import epath
from rich.table import Table

from rstar_jax.evaluation import EqualTokens, Greedy, Measurement, Samples, Search
from rstar_jax.evolution.config import DIFFICULTIES, EvolutionConfig, Pass
from rstar_jax.evolution.plan import plan
from rstar_jax.evolution.run import EXAMPLES, Run, benchmark_set, problems_folder
from rstar_jax.evolution.run_folder import Phase, RunFolder
from rstar_jax.problems.mixture import Mixture
from rstar_jax.problems.procedural import ProceduralProblems
from rstar_jax.problems.sources import ProblemSet, Source
from rstar_jax.problems.stored import StoredProblems
from rstar_jax.search import SearchConfig
from rstar_jax.training import TrainingConfig

STEPS = 6  # of a trajectory
STEP_TOKENS = 60
# Of the problems, those without a right answer after round 1, 2, 3, 4 and more (paper: Table 2).
UNSOLVED = (0.3983, 0.3340, 0.2214, 0.0975)


@dataclasses.dataclass(kw_only=True)
class _Cost:
    """problems: searched, measured or written; None where nobody knows. tokens: sampled or trained on."""

    problems: float | None = None
    tokens: float | None = None
    how: str = ""


def forecast(config: EvolutionConfig, run_dir: epath.PathLike) -> list[Table | str]:
    """A table of the phases, and lines that say how its tokens were reckoned.

    Raises: ValueError where a phase was made with other settings.
    """
    run = Run(config=config, folder=RunFolder(run_dir))
    phases = plan(run)
    run.folder.check(phases)
    costs = _Costs(run)
    table = Table("phase", "state", "builds on", "problems", "tokens", title=f"{run_dir}: {len(phases)} phases")
    lines, total = [], 0.0
    for phase in phases:
        cost = costs.of(phase)
        done = run.folder.is_done(phase.name)
        state = "done" if done else _missing(run, phase)
        total += 0 if done else cost.tokens or 0
        numbers = ("" if number is None else f"{number:,.0f}" for number in (cost.problems, cost.tokens))
        table.add_row(phase.name, state, ", ".join(phase.inputs), *numbers)
        if cost.how:
            lines.append(f"{phase.name}: {cost.how}")
    return [table, *lines, f"all that is not done: {total:,.0f} tokens"]


def expansions(search: SearchConfig) -> float:
    """How many nodes of one tree a search is expected to expand."""
    expected = STEPS + (search.rollouts - 1) * STEPS / 2
    return min(expected, search.max_expansions or expected)


def size_of(source: Source) -> int | None:
    """How many problems a source has, by what it says of itself where it does; None if that is not to be known."""
    match source:
        case ProblemSet(limit=int(limit)):
            return limit
        case ProblemSet(size=int(size), only=None):
            return size
        case Mixture(size=int(size)):
            return size
        case Mixture(weights=None):  # at most: repeated and contaminated problems go
            sizes = [size_of(part) for part in source.parts]
            return None if None in sizes else sum(sizes)
        case ProceduralProblems():
            return sum(count for levels in source.counts.values() for count in levels)
    try:
        return len(source.read(blind=True))
    except FileNotFoundError:
        return None


def _missing(run: Run, phase: Phase) -> str:
    if phase.shards is None:
        return "missing"
    return f"{len(run.folder.missing_shards(phase.shards))} of {phase.shards.total} shards missing"


class _Costs:
    """The cost of each phase of a run."""

    def __init__(self, run: Run):
        self._run, self._config = run, run.config
        self._sizes: dict[str, int | None] = {}
        self._known = self._costs()

    def of(self, phase: Phase) -> _Cost:
        """What a phase costs; nothing where nothing is known."""
        make = self._known.get(phase.name)
        return make() if make else _Cost()

    def _costs(self) -> dict[str, Callable[[], _Cost]]:
        config, last = self._config, self._run.last
        known: dict[str, Callable[[], _Cost]] = {}

        def problems(phase: str, name: str, source: Source | None, limit: int | None = None) -> None:
            if source is not None:
                known[phase] = lambda: _Cost(problems=self._size(name, source, limit))

        problems("0_problems", "train", config.problems)
        problems(f"0_{EXAMPLES}", EXAMPLES, getattr(config.base, "examples", None))
        for number, settings in enumerate(config.rounds, start=1):
            name = self._run.round_problems(number)
            source = settings.problems or config.problems
            problems(f"{number}_problems", name, settings.problems)
            for place in range(1, len(settings.passes) + 1):
                known[f"{number}_search_{place}"] = lambda own=(number, place, name, source): self._pass(*own)
            known[f"{number}_select"] = lambda name=name, source=source: _Cost(problems=self._size(name, source))
            for title, training, sides in (("policy", settings.policy, 1), ("ppm", settings.ppm, 2)):
                known[f"{number}_{title}"] = lambda training=training, sides=sides: _trained(training, sides)
        for benchmark in config.benchmarks:
            name = benchmark_set(benchmark.name)
            problems(f"0_problems_{benchmark.name}", name, benchmark.problems, benchmark.limit)
            measured = config.measured(benchmark)
            size = lambda own=benchmark, name=name: self._size(name, own.problems, own.limit)  # noqa: E731
            for own in measured.of_every_round:
                for number in range(last + 1):
                    known[f"{number}_evaluate_{benchmark.name}"] = lambda own=own, size=size: _measured(own, size())
            for own in measured.of_the_last_round:
                phase = f"{last}_evaluate_{benchmark.name}_{own.name}"
                known[phase] = lambda own=own, size=size: _measured(own, size())
        return known

    def _size(self, name: str, source: Source, limit: int | None = None) -> int | None:
        """How many problems a set of the run has, or will have."""
        if name not in self._sizes:
            try:
                self._sizes[name] = len(StoredProblems(problems_folder(self._run.folder.path, name)))
            except FileNotFoundError:
                size = size_of(source)
                self._sizes[name] = size if size is None or limit is None else min(size, limit)
        return self._sizes[name]

    def _pass(self, number: int, place: int, name: str, source: Source) -> _Cost:
        own, size = self._config.rounds[number - 1].passes[place - 1], self._size(name, source)
        share, why = self._share(number, place, own)
        problems = None if size is None else size * share
        each, how = self._tree_tokens(own.search)
        if problems is None:
            return _Cost(how=f"{how} (nobody knows how many problems there are)")
        how = f"{size:,} problems{why} x {own.trees} trees x {how}"
        return _Cost(problems=problems, tokens=problems * own.trees * each, how=how)

    def _share(self, number: int, place: int, own: Pass) -> tuple[float, str]:
        """Of the problems, those that a pass asks; as the pass before it has counted them, or as the paper has it."""
        if own.asks_all:
            return 1.0, ""
        what = " and ".join(own.only)
        rows = self._run.folder.rows(f"{number}_search_{place - 1}") if place > 1 else None
        if rows:
            counts = {row["name"].removesuffix("_problems"): row["value"] for row in rows}
            share = sum(counts[one] for one in own.only) / max(sum(counts[one] for one in DIFFICULTIES), 1)
            return share, f" x {share:.4f} {what} (measured)"
        if own.only != ("hard",):
            return 1.0, f" x at most 1 {what}"
        unsolved = UNSOLVED[min(number, len(UNSOLVED)) - 1]
        return unsolved, f" x {unsolved:.4f} {what} (paper, Table 2)"

    def _tree_tokens(self, search: SearchConfig) -> tuple[float, str]:
        """Tokens of one tree, and the arithmetic."""
        tokens, why = self._step_tokens()
        nodes = expansions(search)
        how = (
            f"({STEPS} + {search.rollouts - 1} x {STEPS}/2 = {nodes:,.0f} expansions) x {search.candidates} candidates "
            f"x {tokens:,.1f} tokens ({why})"
        )
        return nodes * search.candidates * tokens, how

    def _step_tokens(self) -> tuple[float, str]:
        """Tokens a candidate and expected expansion, of the last search that is done; else as assumed."""
        for number in range(self._run.last, 0, -1):
            rows = self._run.folder.rows(f"{number}_search_1")
            values = {row["name"]: row["value"] for row in rows or ()}
            if values.get("searched_problems") and values.get("searched_tokens"):
                own = self._config.rounds[number - 1].passes[0]
                each = values["searched_tokens"] / values["searched_problems"] / own.trees
                return each / expansions(own.search) / own.search.candidates, f"as {number}_search_1 had"
        return STEP_TOKENS, "assumed"


def _trained(config: TrainingConfig, sides: int) -> _Cost:
    """sides: sequences of an example."""
    if config.steps is None:
        return _Cost(how=f"{config.epochs:g} epochs of what is selected")
    how = f"at most {config.steps} steps of {config.batch * sides} x {config.max_length} tokens"
    return _Cost(tokens=config.steps * config.batch * sides * config.max_length, how=how)


def _measured(own: Measurement, problems: int | None) -> _Cost:
    if problems is None:
        return _Cost()
    solution = STEPS * STEP_TOKENS
    match own:
        case Greedy():
            tokens = problems * solution
        case Samples():
            tokens = problems * own.n * solution
        case Search() if own.config.beam_width is None:
            tokens = problems * own.trees * expansions(own.config) * own.config.candidates * STEP_TOKENS
        case Search():
            tokens = problems * own.trees * STEPS * own.config.beam_width * own.config.candidates * STEP_TOKENS
        case EqualTokens():
            return _Cost(problems=problems, how=f"as many tokens as {own.search}")
    return _Cost(problems=problems, tokens=tokens)
