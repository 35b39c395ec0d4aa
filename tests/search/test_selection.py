"""Which trajectories and pairs are learned from, by hand on small trees."""

import dataclasses

import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.search import PairConfig, correct_trajectories, preference_pairs, uct
from rstar_jax.search.selection import mean_q
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree

CONFIG = PairConfig()


class Garden:
    """Builds a tree by the names of its nodes."""

    def __init__(self):
        self.tree = Tree(Problem(id="p", question="q", answers=("1",)), key=0, prompt="prompt", prompt_tokens=())
        self.index = {"": ROOT_INDEX}

    def add(self, parent, text, kind=Kind.STEP, verdict="ok", **fields):
        node = Node(text=text, tokens=(), kind=kind, verdict=verdict, **fields)
        self.index[text] = self.tree.add(self.index[parent], node)
        return self.index[text]

    def answer(self, parent, text, correct):
        leaf = self.add(parent, text, Kind.ANSWER, verdict="", answer=text)
        self.tree.correct[leaf] = correct
        uct.backup(self.tree, leaf, 1.0 if correct else -1.0)

    def failed(self, parent, text, verdict="error"):
        self.tree.update(self.add(parent, text, Kind.FAILED, verdict=verdict, error="E"), -1.0)


def garden() -> Garden:
    """Root: A (2 right, 1 wrong), B (1 wrong), C (1 right), D (a failure below), E (failed), F (nothing below)."""
    g = Garden()
    for name in "ABCDF":
        g.add("", name)
    g.failed("", "E")
    g.answer("A", "a1", True)
    g.answer("A", "a2", False)
    g.answer("A", "a3", True)
    g.answer("B", "b1", False)
    g.answer("C", "c1", True)
    g.failed("D", "d1")
    return g


def step_pairs(tree, config=CONFIG):
    return [(pair.prefix, pair.chosen, pair.rejected) for pair in preference_pairs(tree, config) if pair.kind == "step"]


def test_the_pair_rule_by_hand():
    pairs = preference_pairs(garden().tree, CONFIG)
    steps = [pair for pair in pairs if pair.kind == "step"]
    # C (Q 1) before A (Q 1/3). B led to a wrong answer and goes first; of the failures E (Q -1) is lower than D (Q 0).
    assert [(p.prefix, p.chosen, p.rejected) for p in steps] == [
        ("", "C", "B"),
        ("", "C", "E"),
        ("", "A", "B"),
        ("", "A", "E"),
        ("A", "a1", "a2"),
        ("A", "a3", "a2"),
    ]
    assert [p.margin for p in steps] == pytest.approx([2, 2, 4 / 3, 4 / 3, 2, 2])
    assert [p.weight for p in steps] == [0.25] * 4 + [0.5] * 2
    trajectories = [(p.prefix, p.chosen, p.rejected, p.weight) for p in pairs if p.kind == "trajectory"]
    assert trajectories == [
        ("", "Cc1", "Bb1", 0.25),
        ("", "Cc1", "Aa2", 0.25),
        ("", "Aa1", "Bb1", 0.25),
        ("", "Aa1", "Aa2", 0.25),
    ]
    assert {p.problem_id for p in pairs} == {"p"}


def test_failures_count_as_wrong_only_if_asked():
    pairs = step_pairs(garden().tree, dataclasses.replace(CONFIG, failed_as_wrong=False))
    assert pairs[:2] == [("", "C", "B"), ("", "A", "B")]


def test_a_fault_of_ours_or_a_budget_is_no_negative():
    g = Garden()
    for name in "ABC":
        g.add("", name)
    g.answer("A", "a1", True)
    g.failed("B", "b1", verdict="unverified")
    g.failed("C", "c1", verdict="")  # too long, too deep
    assert preference_pairs(g.tree, CONFIG) == []


def test_margin():
    tree = garden().tree
    assert all(pair.margin > 1.5 for pair in preference_pairs(tree, PairConfig(margin=1.5)))
    assert ("", "A", "B") not in step_pairs(tree, PairConfig(margin=1.5))


def test_a_tree_of_one_kind_of_end_gives_no_pairs():
    g = Garden()
    g.add("", "A")
    g.answer("A", "a1", True)
    g.answer("A", "a2", True)
    assert preference_pairs(g.tree, CONFIG) == []


def test_trajectories_are_ranked_by_mean_then_lowest_q():
    tree = garden().tree
    leaves = correct_trajectories(tree, n=3)
    assert [tree.response_text(leaf) for leaf in leaves] == ["Cc1", "Aa1", "Aa3"]
    assert [mean_q(tree, leaf) for leaf in leaves] == pytest.approx([1, 2 / 3, 2 / 3])
    assert correct_trajectories(tree) == leaves[:2]


def test_a_trajectory_with_a_failed_step_is_left_out():
    g = Garden()
    g.add("", "A", verdict="error", error="E")
    g.add("", "B")
    g.answer("A", "a1", True)
    g.answer("B", "b1", True)
    assert [g.tree.response_text(leaf) for leaf in correct_trajectories(g.tree)] == ["Bb1"]


def test_equal_texts_count_once():
    g = Garden()
    g.add("", "A")
    g.add("", "Ax")
    g.answer("A", "xy", True)
    g.answer("Ax", "y", True)
    assert len(correct_trajectories(g.tree)) == 1
