"""Ways to answer problems: greedy, samples, a search, and as many samples as cost the tokens of the search.

Each gives a row a problem: {"id", "level", "source", "measurement", "answers", "right", "chosen", "values", "tokens",
"programs", "ran"}. answers, right: all that were found, null where a sample or a tree came to none, and whether each is
right (true, false, null for undecided). chosen: {name of a number: {"answer", "right", "text"}}, the answer that was
chosen and the solution that it is from. values: {name of a number: its value for this problem}. tokens: sampled.
programs: run, equal ones of a problem once; ran: those of samples without a fault. Searches of several trees have
"curve" besides: {rule: {number of trees: value}}.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from rstar_jax.decoding import GREEDY, Engine, Sampling
from rstar_jax.evaluation.accuracy import ACCURACY, grade_answers
from rstar_jax.evaluation.trajectories import scaling_curve, search_answers, search_trees
from rstar_jax.problems import Problem
from rstar_jax.search import (
    SchedulerConfig,
    ScoredAnswer,
    SearchConfig,
    Solution,
    Tree,
    VoteConfig,
    pass_at_k,
    sample_solutions,
    solution_answers,
    tree_answers,
    vote,
    write_shard,
)
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Grader, Verifier

Row = dict[str, Any]
Rows = Mapping[str, Sequence[Row]]  # by measurement
SAMPLES = "samples"


@contextlib.contextmanager
def _quiet(name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """A bar that shows nothing."""
    yield lambda done, note="": None


@dataclasses.dataclass(kw_only=True)
class Bench:
    """What measurements are made with.

    make_engine: the policy as sampler for (sampling, whether the PPM stands beside it as scorer). has_ppm: whether it
    can. prompt: made of a question. trees: a folder in which searched trees are kept, or None. bar: shows progress.
    Samples and searches draw with one seed, and the root of a tree has the key of a sample: the first step of a search
    begins as samples do.
    """

    make_engine: Callable[[Sampling, bool], Engine]
    has_ppm: bool
    verifier: Verifier
    grader: Grader
    max_prefix_tokens: int
    scheduling: SchedulerConfig = SchedulerConfig()
    seed: int = 0
    prompt: Callable[[str], str] = steps.prompt
    trees: epath.PathLike | None = None
    bar: Callable[[str, int, str], Any] = _quiet
    _made: tuple[tuple[Sampling, bool], Engine] | None = None
    _begun: dict[str, float] = dataclasses.field(default_factory=dict)

    def engine(self, sampling: Sampling, with_ppm: bool = False) -> Engine:
        """An engine that begins anew; one at a time, because each has a pool of its own."""
        if self._made is None or self._made[0] != (sampling, with_ppm):
            self._made = None
            self._made = (sampling, with_ppm), self.make_engine(sampling, with_ppm)
        self._made[1].begin()
        return self._made[1]

    def scheduling_of(self, measurement: str) -> SchedulerConfig:
        """With the seconds that are left of those of a measurement, which began when this was asked first."""
        now = time.monotonic()
        return self.scheduling.after(now - self._begun.setdefault(measurement, now))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """The policy's most likely solution: greedy_accuracy."""

    name: str = "greedy"
    needs_ppm = False

    def rows(self, problems: Sequence[Problem], bench: Bench, measured: Rows, piece: tuple[int, int]) -> list[Row]:
        """A row a problem. measured: the rows of measurements before it. piece: which of how many parts these are."""
        return _sampled(self.name, problems, 1, bench, bench.engine(GREEDY), f"{self.name}{ACCURACY}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """n independent solutions: majority_accuracy, pass_at_n and, with a PPM, best_of_n_accuracy.

    The names have `name` in front if it is another than "samples".
    """

    n: int = 8
    sampling: Sampling = Sampling()
    name: str = SAMPLES
    needs_ppm = False

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"Samples.n must be at least 1, got {self.n}")

    def rows(self, problems: Sequence[Problem], bench: Bench, measured: Rows, piece: tuple[int, int]) -> list[Row]:
        """As `Greedy.rows`."""
        engine, before = bench.engine(self.sampling, bench.has_ppm), "" if self.name == SAMPLES else f"{self.name}_"
        best = f"{before}best_of_n{ACCURACY}" if bench.has_ppm else None
        found = _sampled(self.name, problems, self.n, bench, engine, f"{before}majority{ACCURACY}", best)
        for row in found:
            hits = row["right"].count(True)
            row["values"][f"{before}pass_at_{self.n}"] = pass_at_k(self.n, hits, self.n)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A test-time search: search_accuracy, called by `name`. With a beam_width in its config it is a step beam.

    trees: independent searches a problem, each with a seed of its own (paper: 8, or 16 on AIME and AMC, and 64; in the
    released code each of them is one whole MCTS). vote: how one answer is chosen from theirs; of one tree, every rule
    chooses the one that the PPM values most. With several trees also the accuracy of each rule by how many vote.
    """

    config: SearchConfig
    trees: int = 1
    vote: VoteConfig = VoteConfig()
    sampling: Sampling = Sampling()
    name: str = "search"

    def __post_init__(self):
        if self.trees < 1:
            raise ValueError(f"Search.trees must be at least 1, got {self.trees}")

    @property
    def needs_ppm(self) -> bool:
        """Whether it cannot be made without a PPM."""
        return self.config.needs_scorer

    def searched(self, problems: Sequence[Problem], bench: Bench, name: str) -> list[list[Tree]]:
        """The trees of each problem; `name` stands beside the bar."""
        engine = bench.engine(self.sampling, bench.has_ppm)
        with bench.bar(name, len(problems) * self.trees, "trees") as advance_to:
            return search_trees(
                problems,
                config=self.config,
                trajectories=self.trees,
                sampler=engine,
                scorer=engine if bench.has_ppm else None,
                verifier=bench.verifier,
                seed=bench.seed,
                scheduling=bench.scheduling_of(self.name),
                prompt=bench.prompt,
                on_progress=lambda stats: advance_to(stats.finished_trees, f"{stats.expansions} expansions"),
            )

    def rows(self, problems: Sequence[Problem], bench: Bench, measured: Rows, piece: tuple[int, int]) -> list[Row]:
        """As `Greedy.rows`."""
        trees = self.searched(problems, bench, self.name)
        if bench.trees is not None:
            write_shard(bench.trees, *piece, itertools.chain.from_iterable(trees))
        chosen = search_answers(trees, bench.grader, self.vote)
        curve = scaling_curve(problems, trees, bench.grader, self.vote) if self.trees > 1 else {}
        answers = [[next((own.answer for own in tree_answers(tree, 1)), None) for tree in row] for row in trees]
        # All is chosen: from here on the gold is looked at.
        grades = _grades(problems, [[*own, answer] for own, answer in zip(answers, chosen, strict=True)], bench)
        rows = []
        for i, own in enumerate(trees):
            picked = {f"{self.name}{ACCURACY}": (chosen[i], _solution(chosen[i], own))}
            rows.append(
                _row(self.name, problems[i], answers[i], grades[i], picked)
                | {"tokens": sum(tree.sampled_tokens for tree in own), "programs": sum(tree.programs for tree in own)}
            )
            if curve:
                rows[-1]["curve"] = {
                    rule: {str(size): values[i] for size, values in sizes.items()} for rule, sizes in curve.items()
                }
        return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class EqualTokens:
    """The majority vote of as many samples as cost the tokens of a search: equal_tokens_majority_accuracy.

    search, samples: the names of the two measurements before it. It draws as `samples` does, its first ones again.
    """

    search: str = "search"
    samples: str = SAMPLES
    sampling: Sampling = Sampling()
    name: str = "equal_tokens"
    needs_ppm = False

    def n(self, measured: Rows) -> int:
        """How many samples cost as much, to the nearest; at least one."""
        search, samples = measured[self.search], measured[self.samples]
        drawn = sum(len(row["answers"]) for row in samples)
        each = sum(row["tokens"] for row in samples) / max(drawn, 1)
        return max(round(sum(row["tokens"] for row in search) / max(len(search), 1) / max(each, 1e-9)), 1)

    def rows(self, problems: Sequence[Problem], bench: Bench, measured: Rows, piece: tuple[int, int]) -> list[Row]:
        """As `Greedy.rows`."""
        engine, name = bench.engine(self.sampling), f"{self.name}_majority{ACCURACY}"
        return _sampled(self.name, problems, self.n(measured), bench, engine, name)


Measurement = Greedy | Samples | Search | EqualTokens


def _sampled(
    measurement: str,
    problems: Sequence[Problem],
    n: int,
    bench: Bench,
    engine: Engine,
    majority: str,
    best: str | None = None,
) -> list[Row]:
    """Rows of n samples a problem; majority, best: how the numbers of the vote and of the PPM's choice are called."""
    common: dict[str, Any] = dict(sampler=engine, seed=bench.seed, prompt=bench.prompt)
    with bench.bar(measurement, len(problems) * n, "solutions") as advance_to:
        solutions = sample_solutions(
            problems, n, verifier=bench.verifier, max_prefix_tokens=bench.max_prefix_tokens, **common
        )
        advance_to(len(problems) * n)
    voters = {majority: solution_answers(problems, solutions, **common)}
    rules = {majority: VoteConfig(rule="majority"), best: VoteConfig(rule="best")}
    if best is not None:
        voters[best] = solution_answers(problems, solutions, scorer=engine, **common)
    chosen = {name: vote(own, bench.grader, rules[name]) for name, own in voters.items()}
    # All is chosen: from here on the gold is looked at.
    answers = [[solution.answer for solution in own] for own in solutions]
    grades = _grades(problems, answers, bench)
    rows = []
    for i, (problem, own) in enumerate(zip(problems, solutions, strict=True)):
        picked = {name: (chosen[name][i], _text(chosen[name][i], voters[name][i], own)) for name in voters}
        programs = {solution.program: solution.ran for solution in own if solution.program is not None}
        rows.append(
            _row(measurement, problem, answers[i], grades[i], picked)
            | {"tokens": sum(solution.sampled_tokens for solution in own)}
            | {"programs": len(programs), "ran": sum(programs.values())}
        )
    return rows


def _solution(answer: str | None, trees: Sequence[Tree]) -> str:
    """The trajectory to the chosen answer that the PPM values most; "" without an answer."""
    leaves = [(tree, leaf) for tree in trees for leaf in tree.answers() if tree.answer[leaf] == answer]
    best = max(leaves, key=lambda own: own[0].q(own[1]), default=None)
    return "" if best is None else best[0].response_text(best[1])


def _text(answer: str | None, voters: Sequence[ScoredAnswer], solutions: Sequence[Solution]) -> str:
    """The solution with the chosen answer that has the highest score; the first one, if there is no answer."""
    texts = [solution.text for solution in solutions if solution.answer is not None]
    found = [(voter.score, text) for voter, text in zip(voters, texts, strict=True) if voter.answer == answer]
    return max(found, key=lambda own: own[0])[1] if found else solutions[0].text


def _grades(
    problems: Sequence[Problem], answers: Sequence[Sequence[str | None]], bench: Bench
) -> list[dict[str | None, bool | None]]:
    """{answer: whether it is right} of each problem, from one call of the grader."""
    asked = [(i, answer) for i, own in enumerate(answers) for answer in dict.fromkeys(own)]
    right = grade_answers([problems[i].answers for i, _ in asked], [answer for _, answer in asked], bench.grader)
    grades: list[dict[str | None, bool | None]] = [{} for _ in problems]
    for (i, answer), grade in zip(asked, right, strict=True):
        grades[i][answer] = grade
    return grades


def _row(
    measurement: str,
    problem: Problem,
    answers: Sequence[str | None],
    grades: Mapping[str | None, bool | None],
    chosen: Mapping[str, tuple[str | None, str]],
) -> Row:
    return {
        "id": problem.id,
        "level": problem.level,
        "source": problem.source,
        "measurement": measurement,
        "answers": list(answers),
        "right": [grades[answer] for answer in answers],
        "chosen": {
            name: {"answer": answer, "right": grades[answer], "text": text} for name, (answer, text) in chosen.items()
        },
        "values": {name: float(grades[answer] is True) for name, (answer, _) in chosen.items()},
    }
