"""Whole searches in the scripted world: what holds for every tree, and that nothing depends on timing or batching."""

import dataclasses
import gc
import itertools
import weakref

import numpy as np
import pytest

from rstar_jax.search import SchedulerConfig, SearchStats, search, search_all, selection
from rstar_jax.search.expansion import TOO_LONG
from rstar_jax.search.mcts import search_tree
from rstar_jax.search.tree import NO_PARENT, ROOT_INDEX, UNKNOWN, Kind, tree_key
from rstar_jax.trajectory import markers, steps

from . import scripted

MODES = ("terminal", "ppm", "test")


def run(problems, mode="terminal", jitter=0.0, **changes):
    world = {
        "sampler": scripted.Sampler(),
        "verifier": scripted.Verifier(jitter),
        "grader": scripted.Grader() if mode != "test" else None,
        "scorer": scripted.Scorer() if mode != "terminal" else None,
    }
    config = dataclasses.replace(scripted.CONFIG, value_mode=mode, **changes)
    stats = SearchStats()
    trees = search_all(problems, config=config, seed=3, stats=stats, **world)
    return trees, world, stats


@pytest.mark.parametrize("mode", MODES)
def test_what_holds_for_every_tree(mode):
    trees, world, stats = run(scripted.problems(12), mode)
    assert any(tree.answers() for tree in trees)
    for tree in trees:
        q = np.array([tree.q(node) for node in range(tree.size)])
        assert (np.abs(q) <= 1).all()
        assert (tree.depth <= scripted.CONFIG.max_depth).all()
        backed_up = [0] * tree.size
        for leaf in tree.answers():
            for node in tree.path(leaf):
                backed_up[node] += 1
        for node in range(tree.size):
            own = tree.visits[node] - backed_up[node]
            kind = tree.kind[node]
            local = kind == Kind.FAILED or (mode != "terminal" and kind in (Kind.STEP, Kind.CODE))
            assert own == local, "a node is visited once for its own value and once for each answer below it"
            if kind == Kind.FAILED:
                assert tree.q(node) == -1 and tree.error[node]
            assert not (tree.is_terminal(node) and tree.children(node))
            children = tree.children(node)
            if children:
                assert tree.exhausted[node] == all(tree.exhausted[child] for child in children)
                assert len({tree.text[child] for child in children}) == len(children), "equal texts merge"
        assert tree.parent[ROOT_INDEX] == NO_PARENT
    assert stats.finished_trees == 12
    assert stats.expansions == len(world["sampler"].asked)
    assert stats.candidates == 4 * stats.expansions
    assert stats.executed_programs == sum(len(request.candidates) for request in world["verifier"].requests)


@pytest.mark.parametrize("mode", MODES)
def test_each_node_is_expanded_at_most_once(mode):
    _, world, _ = run(scripted.problems(12), mode)
    keys = [prefix.key for prefix in world["sampler"].asked]
    assert len(set(keys)) == len(keys)


def test_every_rollout_expands_something():
    config = dataclasses.replace(scripted.CONFIG, rollouts=40)
    sampler, verifier, grader = scripted.Sampler(), scripted.Verifier(), scripted.Grader()
    for problem in scripted.problems(6):
        (tree,) = search_all([problem], sampler=sampler, verifier=verifier, grader=grader, config=config)
        (again,) = search_all(
            [problem], sampler=sampler, verifier=verifier, grader=grader, config=dataclasses.replace(config, rollouts=1)
        )
        sizes = [again.size]
        for rollouts in itertools.count(2):
            few = dataclasses.replace(config, rollouts=rollouts)
            (again,) = search_all([problem], sampler=sampler, verifier=verifier, grader=grader, config=few)
            if again.exhausted[ROOT_INDEX] or rollouts == 40:
                break
            sizes.append(again.size)
        assert sizes == sorted(set(sizes)), "a rollout that adds no node expanded nothing"
        assert again.to_dict() == tree.to_dict()


@pytest.mark.parametrize("mode", MODES)
def test_trees_depend_neither_on_timing_nor_on_the_batch(mode):
    problems = scripted.problems(9)
    trees, _, _ = run(problems, mode)
    delayed, _, _ = run(problems, mode, jitter=0.004)
    backwards, _, _ = run(problems[::-1], mode, jitter=0.004)
    alone = [run([problem], mode)[0][0] for problem in problems]
    records = [tree.to_dict() for tree in trees]
    assert records == [tree.to_dict() for tree in delayed]
    assert records == [tree.to_dict() for tree in backwards[::-1]]
    assert records == [tree.to_dict() for tree in alone]


def test_trajectories_are_independent_and_the_first_is_the_only_one_of_a_single_search():
    problems = scripted.problems(5)
    config = dataclasses.replace(scripted.CONFIG, value_mode="test")

    def searched(problems, **more):
        world = {"sampler": scripted.Sampler(), "verifier": scripted.Verifier(), "scorer": scripted.Scorer()}
        return [tree.to_dict() for tree in search_all(problems, grader=None, config=config, seed=3, **world, **more)]

    trees = searched(problems, trajectories=4)
    assert [tree["problem"]["id"] for tree in trees] == [problem.id for problem in problems for _ in range(4)]
    assert len({tree["key"] for tree in trees}) == len(trees)
    assert trees[::4] == searched(problems)
    one = SchedulerConfig(in_flight=1)
    assert trees == [tree for problem in problems for tree in searched([problem], trajectories=4, scheduling=one)]
    pairs = searched(problems, trajectories=2)
    assert [trees[i : i + 2] for i in range(0, 20, 4)] == [pairs[i : i + 2] for i in range(0, 10, 2)]
    assert len({repr(tree["columns"]["text"]) for tree in trees[:4]}) == 4


def test_keys_of_trajectories():
    assert tree_key(0, "p") == tree_key(0, "p", 0)
    keys = [tree_key(seed, name, i) for seed in (0, 1, 11) for name in ("p", "1:p", "p:1") for i in range(20)]
    assert len(set(keys)) == len(keys)


def test_a_test_time_search_never_sees_the_answer():
    problems = [
        dataclasses.replace(problem, answers=("SECRET",), solution="SECRET") for problem in scripted.problems(4)
    ]
    trees, world, stats = run(problems, "test")
    assert stats.graded_answers == 0
    for tree in trees:
        assert "SECRET" not in repr(tree.to_dict())
        assert (tree.correct == -1).all()
    assert not any("SECRET" in repr(vars(world[part])) for part in ("sampler", "verifier", "scorer"))
    others, _, _ = run(scripted.problems(4), "test")
    assert [tree.to_dict() for tree in others] == [tree.to_dict() for tree in trees]


def test_a_tree_with_its_answer_is_refused_at_test_time():
    (tree,), _, _ = run(scripted.problems(1))
    config = dataclasses.replace(scripted.CONFIG, value_mode="test")
    with pytest.raises(ValueError, match="must not be given the answer"):
        next(search_tree(tree, config, scripted.encode))


def test_missing_parts_are_named():
    world = {"sampler": scripted.Sampler(), "verifier": scripted.Verifier(), "grader": None}
    with pytest.raises(ValueError, match="needs a scorer"):
        search_all([], config=dataclasses.replace(scripted.CONFIG, value_mode="ppm"), **world)
    with pytest.raises(ValueError, match="needs a grader"):
        search_all([], config=scripted.CONFIG, **world)
    with pytest.raises(ValueError, match="value_mode must be one of"):
        dataclasses.replace(scripted.CONFIG, value_mode="greedy")


def test_only_what_may_go_on_is_scored_and_answers_only_at_test_time():
    for mode in ("ppm", "test"):
        trees, world, _ = run(scripted.problems(12), mode)
        scored = world["scorer"].scored
        alive = [Kind.STEP, Kind.CODE] + [Kind.ANSWER] * (mode == "test")
        assert len(scored) == sum(int(np.isin(tree.kind, alive).sum()) for tree in trees)
        assert any(markers.END_OF_ANSWER in text for text in scored) == (mode == "test")


def test_too_long_paths_fail_and_are_counted():
    trees, _, stats = run(scripted.problems(6), max_prefix_tokens=200)
    failed = sum(tree.error.count(TOO_LONG) for tree in trees)
    assert failed == stats.too_long > 0
    for tree in trees:
        for node in range(tree.size):
            if tree.kind[node] != Kind.FAILED:
                assert len(tree.path_tokens(node)) <= 200


def test_a_prompt_that_is_too_long_ends_its_tree():
    trees, world, stats = run(scripted.problems(3), max_prefix_tokens=10)
    assert stats.too_long == stats.finished_trees == 3 and stats.expansions == 0
    assert all(tree.size == 1 and tree.error[ROOT_INDEX] == TOO_LONG for tree in trees)
    assert not world["sampler"].asked


def test_an_answer_is_graded_once_a_tree_and_once_a_turn():
    asked = answered = 0
    for problem in scripted.problems(30):
        (tree,), world, stats = run([problem], rollouts=20)
        pairs = world["grader"].pairs
        assert len(pairs) == len(set(pairs)) == stats.graded_answers
        asked, answered = asked + len(pairs), answered + len(tree.answers())
    assert asked < answered
    trees, world, stats = run(scripted.problems(4) * 2)
    assert stats.graded_answers == len(world["grader"].pairs) < sum(len(tree.answers()) for tree in trees)


def test_trees_come_as_they_end_and_none_is_kept():
    read, ended = [], []
    world = dict(sampler=scripted.Sampler(), verifier=scripted.Verifier(), grader=scripted.Grader())

    def problems():
        for problem in scripted.problems(40):
            read.append(problem.id)
            yield problem

    width = 5
    stream = search(
        problems(), config=scripted.CONFIG, seed=3, scheduling=SchedulerConfig(in_flight=width, patience=None), **world
    )
    assert not read
    for tree in stream:
        ended.append((tree.problem.id, weakref.ref(tree), tree.to_dict()))
        del tree
        gc.collect()
        assert len(read) <= len(ended) + 2 * width
        assert sum(own() is not None for _, own, _ in ended) <= 2 * width
    order = {name: place for place, name in enumerate(read)}
    assert sorted((name for name, _, _ in ended), key=order.get) == read and len(ended) == 40
    whole = search_all(scripted.problems(40), config=scripted.CONFIG, seed=3, **world)
    assert [tree.to_dict() for tree in whole] == [own for _, _, own in sorted(ended, key=lambda own: order[own[0]])]


def test_progress_is_told():
    seen = []
    search_all(
        scripted.problems(3),
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
        on_progress=lambda stats: seen.append((stats.finished_trees, stats.expansions)),
    )
    assert seen == sorted(seen) and seen[-1][0] == 3


def test_what_stands_before_a_question_stands_at_the_root():
    (tree,) = search_all(
        scripted.problems(1),
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
        prompt=lambda question: "Two examples.\n" + steps.prompt(question),
    )
    assert tree.text[ROOT_INDEX] == "Two examples.\n" + steps.prompt(tree.problem.question)
    assert tuple(tree.tokens[ROOT_INDEX]) == scripted.encode(tree.text[ROOT_INDEX]) and tree.answers()
    assert "Two examples." not in tree.response_text(tree.answers()[0])


class Doubtful(scripted.Grader):
    """Cannot decide on some answers."""

    def grade(self, pairs):
        grades = super().grade(pairs)
        return [
            None if scripted.draw("doubt", *pair).random() < 0.4 else grade
            for pair, grade in zip(pairs, grades, strict=True)
        ]


def test_an_undecided_answer_is_neither_right_nor_wrong():
    """It backs up nothing, ends no pair and no trajectory, is counted, and the search goes on elsewhere."""
    stats = SearchStats()
    world = {"sampler": scripted.Sampler(), "verifier": scripted.Verifier(), "grader": Doubtful()}
    trees = search_all(scripted.problems(12), config=scripted.CONFIG, seed=3, stats=stats, **world)
    undecided = [(tree, leaf) for tree in trees for leaf in tree.answers() if tree.correct[leaf] == UNKNOWN]
    decided = [(tree, leaf) for tree in trees for leaf in tree.answers() if tree.correct[leaf] != UNKNOWN]
    assert undecided and decided and stats.undecided_answers > 0
    assert stats.finished_trees == 12
    for tree, leaf in undecided:
        assert tree.visits[leaf] == 0 and tree.q(leaf) == 0
        assert tree.exhausted[leaf]
    for tree in trees:
        worth = [0.0] * tree.size
        for leaf in tree.answers():
            for node in tree.path(leaf):
                worth[node] += {1: 1.0, 0: -1.0}.get(tree.correct.item(leaf), 0.0)
        for node in range(tree.size):
            if tree.kind[node] != Kind.FAILED:
                assert tree.value_sum[node] == worth[node]
        texts = {tree.response_text(leaf) for leaf in tree.answers() if tree.correct[leaf] == UNKNOWN}
        kept = {tree.response_text(leaf) for leaf in selection.correct_trajectories(tree, 100)}
        for pair in selection.preference_pairs(tree, selection.PairConfig(per_side=100, failed_as_wrong=False)):
            sides = {pair.prefix + pair.chosen, pair.prefix + pair.rejected}
            if pair.kind == "trajectory":
                assert not sides & (texts - kept)
        assert not kept & texts - {tree.response_text(leaf) for leaf in tree.answers() if tree.correct[leaf] == 1}


def test_all_undecided_makes_nothing_to_learn_from():
    class Undecided(scripted.Grader):
        def grade(self, pairs):
            return [None] * len(pairs)

    world = {"sampler": scripted.Sampler(), "verifier": scripted.Verifier(), "grader": Undecided()}
    for tree in search_all(scripted.problems(6), config=scripted.CONFIG, seed=3, **world):
        assert not selection.correct_trajectories(tree, 10)
        assert not selection.preference_pairs(tree, selection.PairConfig())
