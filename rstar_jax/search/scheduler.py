"""Searches many trees at the same time: while some are decoded, the code of others runs, and others are scored.

Turns follow each other. In a turn the code that was sent off before the last turn is waited for, what asks to be judged
is graded and, while that runs, scored in one batch, what asks for samples is given to the sampler, the sampler goes on
a little for all that it has, and what it has finished sends its code off. So code has a whole turn of decoding to run
in. Who is in a batch follows from the order of turns alone, not from which program happened to end first, and no draw
depends on who is in a batch: the trees are the same on every machine and every day.

Code and grades that take longer than `SchedulerConfig.patience` are not waited for: their tree steps aside until they
are done, and holds up nobody. A tree is then the same as far as rounding does not depend on who else is in a batch.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import numpy as np

from rstar_jax.problems.problem import Problem
from rstar_jax.search import expansion
from rstar_jax.search.beam import beam_search
from rstar_jax.search.config import SchedulerConfig, SearchConfig
from rstar_jax.search.mcts import search_tree
from rstar_jax.search.protocols import Grader, StepSampler, StepScorer, Verifier
from rstar_jax.search.tree import Tree, tree_key
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Verdict

_Pair = tuple[tuple[str, ...], str]  # gold answers, an answer


@dataclasses.dataclass(kw_only=True)
class SearchStats:
    """What a search did so far.

    finished_trees: those that have ended. expansions: nodes expanded. candidates: steps sampled, duplicates included.
    sampled_tokens: theirs. executed_programs: candidates that went to the verifier. unverified_programs: those of which
    it lost the process, twice. graded_answers: (gold, answer) pairs that went to the grader, once a tree.
    undecided_answers: those that it could not decide. too_long: candidates that ended as failed at `max_prefix_tokens`.
    out_of_time: trees that ended at `SchedulerConfig.seconds`, some of them before their root was expanded.
    *_seconds: wall time in which the search waited for that part; program_seconds: CPU time of all that was executed.
    """

    finished_trees: int = 0
    expansions: int = 0
    candidates: int = 0
    sampled_tokens: int = 0
    executed_programs: int = 0
    unverified_programs: int = 0
    graded_answers: int = 0
    undecided_answers: int = 0
    too_long: int = 0
    out_of_time: int = 0
    sampler_seconds: float = 0.0
    verifier_seconds: float = 0.0
    program_seconds: float = 0.0
    scorer_seconds: float = 0.0
    grader_seconds: float = 0.0


def search(
    problems: Iterable[Problem],
    *,
    sampler: StepSampler,
    verifier: Verifier,
    grader: Grader | None,
    config: SearchConfig,
    scorer: StepScorer | None = None,
    seed: int = 0,
    trajectories: int = 1,
    first_trajectory: int = 0,
    prompt: Callable[[str], str] = steps.prompt,
    scheduling: SchedulerConfig | None = None,
    stops: Sequence[str] = markers.STEP_STOPS,
    on_progress: Callable[[SearchStats], None] | None = None,
    stats: SearchStats | None = None,
) -> Generator[Tree, None, None]:
    """The searched trees, each as it ends; a problem is read when there is a place for its tree, and not kept.

    However it ends, by `close` or an error too, nothing that it asked stays with the sampler; programs and pairs that
    were sent off run to their end, which their limits bound.

    trajectories: independent searches, each with a tree of its own, of each problem; first_trajectory: the number of
        the first of them, which keys its draws. prompt: made of a question.
    grader: None in a test-time search, which never sees the ground truth: its trees carry problems without answers.
    scorer: the PPM; None in a terminal-guided search. scheduling: `SchedulerConfig()` if None.
    on_progress: called after each turn. stats: counted up in place.

    Raises: ValueError if the value mode needs a scorer or a grader that is not given.
    """
    if config.needs_scorer and scorer is None:
        raise ValueError(f"value_mode {config.value_mode!r} needs a scorer")
    if config.sees_answers and grader is None:
        raise ValueError(f"value_mode {config.value_mode!r} needs a grader")
    trees = (
        plant(problem, sampler=sampler, config=config, seed=seed, trajectory=trajectory, prompt=prompt)
        for problem in problems
        for trajectory in range(first_trajectory, first_trajectory + trajectories)
    )
    world = _World(
        sampler=sampler,
        verifier=verifier,
        grader=grader,
        scorer=scorer,
        stops=stops,
        stats=SearchStats() if stats is None else stats,
        config=config,
    )
    return _grow(trees, scheduling or SchedulerConfig(), world, on_progress or (lambda stats: None))


def search_all(
    problems: Sequence[Problem], *, trajectories: int = 1, first_trajectory: int = 0, seed: int = 0, **arguments: Any
) -> list[Tree]:
    """`search`, its trees in the order of `problems`; those of one problem stand behind each other."""
    numbers = range(first_trajectory, first_trajectory + trajectories)
    keys = [(problem.id, tree_key(seed, problem.id, number)) for problem in problems for number in numbers]
    found: dict[tuple[str, int], list[Tree]] = {}
    trees = search(problems, trajectories=trajectories, first_trajectory=first_trajectory, seed=seed, **arguments)
    for tree in trees:
        found.setdefault((tree.problem.id, tree.key), []).append(tree)
    return [found[key].pop() for key in keys]


def _grow(
    trees: Iterator[Tree], scheduling: SchedulerConfig, world: "_World", on_progress: Callable[[SearchStats], None]
) -> Generator[Tree, None, None]:
    turns = _Turns(trees, scheduling, world)
    try:
        yield from turns.ended()
        while turns.live:
            turns.take()
            on_progress(world.stats)
            yield from turns.ended()
    finally:
        turns.give_up()


def plant(
    problem: Problem,
    *,
    sampler: StepSampler,
    config: SearchConfig,
    seed: int,
    trajectory: int = 0,
    prompt: Callable[[str], str] = steps.prompt,
) -> Tree:
    """A tree of a root alone. For a test-time search its problem has no answer: what is not there cannot leak."""
    if not config.sees_answers:
        problem = problem.blind()
    text, key = prompt(problem.question), tree_key(seed, problem.id, trajectory)
    return Tree(problem, key=key, prompt=text, prompt_tokens=tuple(sampler.encode(text)))


@dataclasses.dataclass(kw_only=True)
class _World:
    """All that answers questions, and what has been asked so far."""

    sampler: StepSampler
    verifier: Verifier
    grader: Grader | None
    scorer: StepScorer | None
    stops: Sequence[str]
    stats: SearchStats
    config: SearchConfig


class _Growing:
    """A tree, its search, and what the search asks now (None: it is over)."""

    def __init__(self, tree: Tree, world: _World):
        self.tree = tree
        searcher = search_tree if world.config.beam_width is None else beam_search
        self.search = searcher(tree, world.config, world.sampler.encode)
        self.ask: expansion.Ask | None = next(self.search, None)
        self.futures: list[Future] = []  # answers to `ask`, if sampler, verifier or grader have it
        self.sent = 0  # the turn in which they were asked
        self.expansions = 0
        self.scores: list[np.ndarray] | None = None  # those of `ask`, once it is scored
        self.grades: dict[_Pair, Future[bool | None]] = {}  # an undecided one stays so in a tree
        self.waited = False  # whether its code has had its turn and the patience of one

    def done(self) -> bool:
        """Whether all that it asked is answered."""
        return all(future.done() for future in self.futures)

    def spent(self, config: SearchConfig) -> bool:
        """Whether the tree has used up one of its budgets."""
        return self.expansions >= (config.max_expansions or math.inf) or self.tree.sampled_tokens >= (
            config.max_sampled_tokens or math.inf
        )

    def stop(self) -> None:
        """Ends the search where it stands."""
        self.search.close()
        self.ask = None

    def send(self, answer: Any) -> None:
        self.futures, self.scores, self.waited = [], None, False
        try:
            self.ask = self.search.send(answer)
        except StopIteration:
            self.ask = None


class _Turns:
    """The trees that are searched now, and those that wait for a place."""

    def __init__(self, trees: Iterator[Tree], scheduling: SchedulerConfig, world: _World):
        self.world, self.width, self.patience = world, scheduling.in_flight, scheduling.patience
        self.end = math.inf if scheduling.seconds is None else time.monotonic() + scheduling.seconds
        self.turn = 0
        self.waiting = trees
        self.live: list[_Growing] = []
        self.grading: dict[_Pair, Future[bool | None]] = {}  # all that the grader has not answered
        self._ended: list[Tree] = []
        self._replace_finished()

    def ended(self) -> list[Tree]:
        """The trees that have ended since this was asked last."""
        ended, self._ended = self._ended, []
        return ended

    def take(self) -> None:
        """One turn."""
        self.turn += 1
        self._collect_code()
        self._judge()
        self._replace_finished()
        self._ask_for_samples()
        self._advance()
        self._replace_finished()

    def give_up(self) -> None:
        """Takes back all that is asked and not answered."""
        for growing in self.live:
            for future in growing.futures:
                future.cancel()

    def _asking(self, kind: type) -> list[_Growing]:
        return [growing for growing in self.live if isinstance(growing.ask, kind)]

    def _collect_code(self) -> None:
        """Waits for the code that had a turn to run in; for all code, if there is nothing to decode meanwhile."""
        stats, start = self.world.stats, time.perf_counter()
        running, idle = self._asking(expansion.Run), not self._asking(expansion.Sample)
        due = [growing for growing in running if not growing.waited and (idle or growing.sent < self.turn - 1)]
        wait([future for growing in due for future in growing.futures], timeout=self.patience)
        for growing in due:
            growing.waited = True
        if running:
            self._wait_if_stuck()
        for growing in running:
            if growing.waited and growing.done():
                outcomes = [future.result() for future in growing.futures]
                for outcome in itertools.chain.from_iterable(outcomes):
                    stats.program_seconds += outcome.cpu_seconds
                    stats.unverified_programs += outcome.verdict is Verdict.UNVERIFIED
                growing.send(outcomes)
        stats.verifier_seconds += time.perf_counter() - start

    def _judge(self) -> None:
        """Grades and scores what is new, and gives those their values whose grades are there."""
        asking = self._asking(expansion.Judge)
        if not asking:
            return
        stats, new = self.world.stats, [growing for growing in asking if growing.scores is None]
        start = time.perf_counter()
        for growing in new:
            growing.futures = [self._grade(growing, pair) for pair in growing.ask.answers]
        stats.grader_seconds += time.perf_counter() - start
        scores = iter(self._score(new))
        for growing in new:
            growing.scores = [next(scores) for _ in growing.ask.prefixes]
        start = time.perf_counter()
        wait([future for growing in new for future in growing.futures], timeout=self.patience)
        self._wait_if_stuck()
        stats.grader_seconds += time.perf_counter() - start
        for growing in asking:
            if growing.done():
                growing.send((growing.scores, [future.result() for future in growing.futures]))
        for pair in [pair for pair, future in self.grading.items() if future.done()]:
            stats.undecided_answers += self.grading.pop(pair).result() is None

    def _grade(self, growing: _Growing, pair: _Pair) -> "Future[bool | None]":
        """The grade of an answer: that which its tree has, or another that waits for it; else it is asked for."""
        if pair not in growing.grades:
            if pair not in self.grading:
                self.grading[pair] = self.world.grader.submit(pair)
                self.world.stats.graded_answers += 1
            growing.grades[pair] = self.grading[pair]
        return growing.grades[pair]

    def _wait_if_stuck(self) -> None:
        """Waits for whatever is done first, where all trees wait for code or grades, and nothing can be decoded."""
        if not self._asking(expansion.Sample) and not any(growing.done() for growing in self.live):
            left = [future for growing in self.live for future in growing.futures if not future.done()]
            wait(left, return_when=FIRST_COMPLETED)

    def _ask_for_samples(self) -> None:
        world = self.world
        late = time.monotonic() >= self.end
        for growing in self._asking(expansion.Sample):
            if not growing.futures and (late or growing.spent(world.config)):
                world.stats.out_of_time += late
                growing.stop()
            elif not growing.futures:
                for prefix in growing.ask.prefixes:  # one by one, so that what was asked before an error is known
                    growing.futures.append(world.sampler.submit(prefix, world.config.candidates, stops=world.stops))

    def _advance(self) -> None:
        """Decodes for a while; what is finished becomes nodes, and sends its code off."""
        stats = self.world.stats
        asking = self._asking(expansion.Sample)
        if not asking:
            return
        start = time.perf_counter()
        self.world.sampler.advance()
        stats.sampler_seconds += time.perf_counter() - start
        for growing in asking:
            if not growing.done():
                continue
            sampled = [future.result() for future in growing.futures]
            tokens = sum(len(step.tokens) for candidates in sampled for step in candidates)
            growing.expansions += len(sampled)
            growing.tree.sampled_tokens += tokens
            stats.expansions += len(sampled)
            stats.candidates += sum(len(candidates) for candidates in sampled)
            stats.sampled_tokens += tokens
            growing.send(sampled)
            if isinstance(growing.ask, expansion.Run):
                growing.futures = [self.world.verifier.submit(request) for request in growing.ask.requests]
                growing.sent = self.turn
                programs = sum(len(request.candidates) for request in growing.ask.requests)
                growing.tree.programs += programs
                stats.executed_programs += programs

    def _score(self, asking: Sequence[_Growing]) -> list:
        prefixes = [prefix for growing in asking for prefix in growing.ask.prefixes]
        if not prefixes:
            return []
        candidates = [row for growing in asking for row in growing.ask.candidates]
        start = time.perf_counter()
        scores = self.world.scorer.score(prefixes, candidates)
        self.world.stats.scorer_seconds += time.perf_counter() - start
        return scores

    def _replace_finished(self) -> None:
        """Lets the next trees in where others are finished."""
        finished = [growing for growing in self.live if growing.ask is None]
        self.live = [growing for growing in self.live if growing.ask is not None]
        while len(self.live) < self.width and (tree := next(self.waiting, None)) is not None:
            growing = _Growing(tree, self.world)
            (finished if growing.ask is None else self.live).append(growing)
        self.world.stats.finished_trees += len(finished)
        for growing in finished:
            self.world.stats.too_long += growing.tree.error.count(expansion.TOO_LONG)
            self._ended.append(growing.tree)
