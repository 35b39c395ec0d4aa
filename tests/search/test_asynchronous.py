"""Answers may come late and in any order: the trees are the same, a straggler holds up nobody, time can run out."""

import dataclasses
import threading
import types
from concurrent.futures import Future

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rstar_jax.search import SchedulerConfig, SearchStats, search, search_all

from . import scripted


class LateVerifier:
    """Each request is answered after a delay of its own, by a thread."""

    def __init__(self, delay):
        self.delay = delay

    def submit(self, request):
        future = Future()
        outcomes = [scripted.run_code(request.prefix, candidate) for candidate in request.candidates]
        threading.Timer(self.delay(request), future.set_result, [outcomes]).start()
        return future


class LateGrader(scripted.Grader):
    """Each pair is graded after a delay of its own, by a thread; an exception may be the outcome."""

    def __init__(self, delay, error=None):
        super().__init__()
        self.delay, self.error = delay, error

    def submit(self, pair):
        future, grade = Future(), self.grade([pair])[0]
        future.set_running_or_notify_cancel()  # as with the grader of the product
        end = (future.set_result, grade) if self.error is None else (future.set_exception, self.error)
        threading.Timer(self.delay(pair), end[0], end[1:]).start()
        return future


class LateSampler(scripted.Sampler):
    """What was submitted is finished some calls of `advance` later, a number of its own each."""

    def __init__(self, turns):
        super().__init__()
        self.turns, self.left = turns, []

    def submit(self, prefix, n, *, stops):
        future = Future()
        self.left.append([self.turns(prefix), prefix, n, stops, future])
        return future

    def advance(self):
        for row in self.left:
            row[0] -= 1
        for _, prefix, n, stops, future in [row for row in self.left if row[0] <= 0]:
            future.set_result(self.expand([prefix], n, stops=stops)[0])
        self.left = [row for row in self.left if row[0] > 0]


def grown(mode, sampler, verifier, grader=None, scorer=None, **settings):
    return search_all(
        scripted.problems(6),
        sampler=sampler,
        verifier=verifier,
        grader=None if mode == "test" else grader or scripted.Grader(),
        scorer=None if mode == "terminal" else scorer or scripted.Scorer(),
        config=dataclasses.replace(scripted.CONFIG, value_mode=mode),
        **settings,
    )


@pytest.mark.parametrize("mode", ["terminal", "ppm", "test"])
@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 1 << 30), patience=st.sampled_from([0.0, 0.002, None]), in_flight=st.integers(1, 8)
)
def test_the_same_trees_whatever_the_order_of_answers(mode, seed, patience, in_flight):
    expected = grown(mode, scripted.Sampler(), scripted.Verifier())
    rng = np.random.default_rng(seed)
    sampler = LateSampler(lambda prefix: rng.integers(1, 5))
    verifier, grader = (
        LateVerifier(lambda request: rng.exponential(0.003)),
        LateGrader(lambda _: rng.exponential(0.003)),
    )
    stats, at_once = SearchStats(), SearchStats()
    scheduling = SchedulerConfig(patience=patience, in_flight=in_flight)
    trees = grown(mode, sampler, verifier, grader, scheduling=scheduling, stats=stats)
    assert [tree.to_dict() for tree in trees] == [tree.to_dict() for tree in expected]
    grown(mode, scripted.Sampler(), scripted.Verifier(), scheduling=scheduling, stats=at_once)
    counted = ("finished_trees", "expansions", "executed_programs", "graded_answers", "undecided_answers")
    assert [getattr(stats, name) for name in counted] == [getattr(at_once, name) for name in counted]


@pytest.mark.parametrize("patience, together", [(0.05, True), (None, False)])
@pytest.mark.parametrize("slow", ["verifier", "grader"])
def test_a_straggler_holds_up_nobody(patience, together, slow):
    """Its code or grade comes when all others are over; without a limit of the patience they would wait for it."""
    over, seen, stats = threading.Event(), [], SearchStats()
    parts = {"verifier": scripted.Verifier(), "grader": scripted.Grader()}
    at_once = parts[slow].submit

    def submit(asked):
        answer = at_once(asked)
        if seen:
            return answer
        seen.append(None)
        future = Future()

        def come_last():
            seen.append(over.wait(60 if together else 0.5))
            future.set_result(answer.result())

        threading.Thread(target=come_last).start()
        return future

    def progress(now):
        if now.finished_trees == 5:
            over.set()

    parts[slow] = types.SimpleNamespace(submit=submit)
    scheduling = SchedulerConfig(patience=patience)
    grown("terminal", scripted.Sampler(), **parts, scheduling=scheduling, on_progress=progress, stats=stats)
    assert stats.finished_trees == 6 and seen == [None, together]


@pytest.mark.parametrize("patience", [0.0, None])
@pytest.mark.parametrize("slow", [0.0, 0.05])
def test_an_error_of_the_grader_ends_the_search(patience, slow):
    grader, stats = LateGrader(lambda pair: slow, OSError("the grader is lost")), SearchStats()
    with pytest.raises(OSError, match="the grader is lost"):
        grown(
            "terminal",
            scripted.Sampler(),
            scripted.Verifier(),
            grader,
            scheduling=SchedulerConfig(patience=patience),
            stats=stats,
        )
    assert stats.graded_answers > 0


def test_answers_are_graded_while_steps_are_scored():
    """Even where a turn waits for all grades: they are asked for first, and under way while the scorer works."""
    grading, under_way = [], []

    class Grader(LateGrader):
        def submit(self, pair):
            grading.append(super().submit(pair))
            return grading[-1]

    class Scorer(scripted.Scorer):
        def score(self, prefixes, candidates):
            under_way.append(sum(not future.done() for future in grading))
            return super().score(prefixes, candidates)

    expected = grown("ppm", scripted.Sampler(), scripted.Verifier())
    scheduling = SchedulerConfig(patience=None)
    grader, scorer = Grader(lambda pair: 0.02), Scorer()
    trees = grown("ppm", scripted.Sampler(), scripted.Verifier(), grader, scorer, scheduling=scheduling)
    assert [tree.to_dict() for tree in trees] == [tree.to_dict() for tree in expected] and max(under_way) > 0


def test_a_search_ends_when_its_time_is_over():
    late, early = SearchStats(), SearchStats()
    limit = SchedulerConfig(seconds=600.0)
    trees = grown("terminal", scripted.Sampler(), scripted.Verifier(), scheduling=limit.after(601.0), stats=late)
    assert [tree.size for tree in trees] == [1] * 6 and late.out_of_time == 6
    whole = grown("terminal", scripted.Sampler(), scripted.Verifier(), scheduling=limit.after(0.0), stats=early)
    assert min(tree.size for tree in whole) > 1 and early.out_of_time == 0


def test_a_tree_ends_when_its_budget_is_spent():
    def sizes(**changes):
        config = dataclasses.replace(scripted.CONFIG, rollouts=100, **changes)
        stats = SearchStats()
        verifier, grader = scripted.Verifier(), scripted.Grader()
        sampler = scripted.Sampler()
        problems = scripted.problems(6)
        trees = search_all(problems, sampler=sampler, verifier=verifier, grader=grader, config=config, stats=stats)
        return [sum(bool(tree.children(node)) for node in range(tree.size)) for tree in trees], stats

    unlimited, _ = sizes()
    limited, stats = sizes(max_expansions=3)
    assert limited == [min(3, count) for count in unlimited] and max(unlimited) > 3
    assert stats.expansions == sum(limited)
    _, spent = sizes(max_sampled_tokens=200)
    assert spent.sampled_tokens < sizes()[1].sampled_tokens
    with pytest.raises(ValueError, match="SearchConfig.max_expansions must be at least 1, or None, got 0"):
        sizes(max_expansions=0)


@pytest.mark.parametrize("end", ["close", "error"])
def test_a_search_that_is_left_early_takes_back_what_it_asked(end):
    """However it ends: the sampler has nothing more to do for it, so the next search finds it as it was."""

    class Remembering(LateSampler):
        def __init__(self):
            super().__init__(lambda prefix: 1 + len(self.futures) % 5)
            self.futures = []

        def submit(self, prefix, n, *, stops):
            self.futures.append(super().submit(prefix, n, stops=stops))
            return self.futures[-1]

    def fail(stats):
        if end == "error" and stats.finished_trees:
            raise OSError("the disk is full")

    sampler = Remembering()
    stream = search(
        scripted.problems(12),
        sampler=sampler,
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
        on_progress=fail,
    )
    if end == "close":
        next(stream)
        stream.close()
    else:
        with pytest.raises(OSError, match="the disk is full"):
            list(stream)
    assert all(future.done() for future in sampler.futures)
    assert 0 < sum(future.cancelled() for future in sampler.futures) < len(sampler.futures)
