"""What is learned from searched trees: correct trajectories for the policy, preference pairs for the PPM.

Source: rStar-Math, sections 3.3 and 3.4: the two correct trajectories with the highest mean Q; at each step the two
candidates with the highest Q that lead to a correct answer against the two with the lowest that lead to a wrong one;
for the final answer, whole trajectories.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from rstar_jax.search.tree import ROOT_INDEX, Kind, Tree
from rstar_jax.verifier.protocol import Verdict

_NOT_THE_STEPS_FAULT = ("", Verdict.OK, Verdict.UNVERIFIED, Verdict.REJECTED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which preference pairs are made.

    per_side: how many positives, and how many negatives, a group of siblings (or of trajectories) gives (paper: 2).
    margin: a pair counts if Q(chosen) - Q(rejected) is larger. The paper names none; the released code takes 0.5.
    failed_as_wrong: whether a step with no correct answer below it counts as negative if only code failures show it.
    Such steps fill the places that steps leading to wrong answers leave: what a program fault tells, the PPM is never
    asked.
    """

    per_side: int = 2
    margin: float = 0.0
    failed_as_wrong: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Two continuations of one prefix, of which one is better.

    prefix: the steps after the prompt that both share; "" for trajectories. chosen, rejected: texts that follow it.
    kind: "step" or "trajectory". margin: the difference of their Q (trajectories: of their mean Q).
    weight: 1 / (pairs of the group), so that every group of siblings weighs the same in the loss.
    """

    problem_id: str
    prefix: str
    chosen: str
    rejected: str
    kind: str
    margin: float
    weight: float


def mean_q(tree: Tree, leaf: int) -> float:
    """The mean Q over the steps of a trajectory, its leaf included."""
    return float(np.mean(_path_q(tree, leaf)))


def best_trajectories(trees: Sequence[Tree], n: int = 2) -> list[tuple[int, int]]:
    """(place of the tree, answer leaf) of the n best correct trajectories of all trees of one problem.

    Best first by (mean Q, lowest Q) of their steps. Trajectories with a step whose code failed are left out (paper:
    only steps that ran are kept); so are texts that are already there.
    """
    found = [
        (place, leaf)
        for place, tree in enumerate(trees)
        for leaf in tree.answers()
        if tree.correct[leaf] == 1 and _all_ran(tree, leaf)
    ]
    q = {(place, leaf): _path_q(trees[place], leaf) for place, leaf in found}
    first: dict[str, tuple[int, int]] = {}
    for place, leaf in sorted(found, key=lambda own: (-float(np.mean(q[own])), -min(q[own]))):
        first.setdefault(trees[place].response_text(leaf), (place, leaf))
    return list(first.values())[:n]


def correct_trajectories(tree: Tree, n: int = 2) -> list[int]:
    """The answer leaves of the n best correct trajectories of one tree (`best_trajectories`)."""
    return [leaf for _, leaf in best_trajectories([tree], n)]


def preference_pairs(tree: Tree, config: PairConfig) -> list[PreferencePair]:
    """Step pairs of every node whose children lead to different ends, in the order of nodes; then trajectory pairs."""
    right, wrong, failed = _ends_below(tree)
    pairs = []
    for node in range(tree.size):
        children = tree.children(node)
        positives = [child for child in children if right[child]]
        negatives = [
            child
            for child in children
            if not right[child] and (wrong[child] or (config.failed_as_wrong and failed[child]))
        ]
        if positives and negatives:
            positives.sort(key=lambda child: -tree.q(child))
            negatives.sort(key=lambda child: (not wrong[child], tree.q(child)))
            pairs += _pairs(tree, tree.response_text(node), positives, negatives, "step", config)
    return pairs + _trajectory_pairs(tree, config)


def valued_steps(tree: Tree, per_side: int = 2) -> list[list[tuple[str, float]]]:
    """(text, Q) of each step of the best correct and of the worst wrong trajectories: what a PQM learns (Table 8)."""
    leaves = correct_trajectories(tree, per_side) + _wrong_trajectories(tree)[:per_side]
    return [[(tree.text[node], tree.q(node)) for node in tree.path(leaf)[1:]] for leaf in leaves]


def _trajectory_pairs(tree: Tree, config: PairConfig) -> list[PreferencePair]:
    right = correct_trajectories(tree, config.per_side)
    return _pairs(tree, "", right, _wrong_trajectories(tree), "trajectory", config)


def _wrong_trajectories(tree: Tree) -> list[int]:
    """The leaves of wrong answers, that of the lowest mean Q first, without texts that are already there."""
    wrong = [leaf for leaf in tree.answers() if tree.correct[leaf] == 0]
    return _distinct(tree, sorted(wrong, key=lambda leaf: mean_q(tree, leaf)))


def _pairs(
    tree: Tree, prefix: str, positives: list[int], negatives: list[int], kind: str, config: PairConfig
) -> list[PreferencePair]:
    """The best positives against the worst negatives, both sorted so that these come first."""
    text, q = tree.text.__getitem__, tree.q
    if kind == "trajectory":
        text, q = tree.response_text, functools.partial(mean_q, tree)
    kept = [
        (chosen, rejected)
        for chosen in positives[: config.per_side]
        for rejected in negatives[: config.per_side]
        if q(chosen) - q(rejected) > config.margin
    ]
    return [
        PreferencePair(
            problem_id=tree.problem.id,
            prefix=prefix,
            chosen=text(chosen),
            rejected=text(rejected),
            kind=kind,
            margin=q(chosen) - q(rejected),
            weight=1.0 / len(kept),
        )
        for chosen, rejected in kept
    ]


def _ends_below(tree: Tree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each node: is a correct answer, a wrong answer, a program fault at it or below it? Three bool [N]."""
    answer = tree.kind == Kind.ANSWER
    right = answer & (tree.correct == 1)
    wrong = answer & (tree.correct == 0)
    # Running out of room or depth says nothing about a step, so it is no end here.
    fault = np.array([verdict not in _NOT_THE_STEPS_FAULT for verdict in tree.verdict])
    failed = (tree.kind == Kind.FAILED) & fault
    for node in range(tree.size - 1, ROOT_INDEX, -1):  # children stand after their parents
        parent = tree.parent[node]
        for ends in (right, wrong, failed):
            ends[parent] |= ends[node]
    return right, wrong, failed


def _path_q(tree: Tree, leaf: int) -> list[float]:
    return [tree.q(node) for node in tree.path(leaf)[1:]]


def _all_ran(tree: Tree, leaf: int) -> bool:
    return all(tree.verdict[node] in ("", Verdict.OK) for node in tree.path(leaf))


def _distinct(tree: Tree, leaves: list[int]) -> list[int]:
    first: dict[str, int] = {}
    for leaf in leaves:
        first.setdefault(tree.response_text(leaf), leaf)
    return list(first.values())
