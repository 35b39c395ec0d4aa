"""What the released code learns from its trees: rows for the policy, preference pairs for the PPM.

Written from the behaviour of microsoft/rStar, branch `rStar-math` (`extra_sft_file.py`, `train/sample_sft_data.py`,
`extra_rm_file.py`, `train/sample_rm_data.py`), so that its published data can be reproduced. `selection.py` is the
paper's way.
"""

import dataclasses
import random
from collections.abc import Sequence

from rstar_jax.search.selection import PreferencePair
from rstar_jax.search.tree import ROOT_INDEX, Kind, Tree

ERROR_WORD = "error"
FOLLOWED = ("all", "most_visited")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSelection:
    """How the released scripts make pairs.

    margin, edit_distance: a pair is kept if its Q differ by so much and its texts by so many letters, or more.
    follow: below a node, pairs are made under all children that lead to both ends, or under the one of them with the
        most visits (`--mode`: all, vis_count).
    """

    margin: float = 0.5
    edit_distance: int = 20
    follow: str = "all"

    def __post_init__(self):
        if self.follow not in FOLLOWED:
            raise ValueError(f"PublishedSelection.follow must be one of {FOLLOWED}, got {self.follow!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairCandidate:
    """Two children of `prefix`: nodes of one tree.

    margin: the difference of their Q. solution_margin: the same for the mean Q of the best completion of the one and
    the worst of the other. positives, negatives: how many of each the group of siblings gave.
    """

    prefix: int
    chosen: int
    rejected: int
    margin: float
    solution_margin: float
    positives: int
    negatives: int


def ranked_trajectories(trees: Sequence[Tree]) -> list[tuple[int, int]]:
    """(index of the tree, leaf) of all correct trajectories of one question, best first by (mean Q, lowest Q)."""
    leaves = [
        (index, leaf) for index, tree in enumerate(trees) for leaf in _depth_first(tree) if tree.correct[leaf] == 1
    ]

    def rank(found: tuple[int, int]) -> tuple[float, float]:
        tree, leaf = trees[found[0]], found[1]
        q = [tree.q(node) for node in tree.path(leaf)[1:]]
        return -sum(q) / len(q), -min(q)

    return sorted(leaves, key=rank)


def correct_trajectories(trees: Sequence[Tree], n: int = 2) -> list[tuple[int, int]]:
    """(index of the tree, leaf) of the n best correct trajectories of each question, over all of its trees.

    One with the word "error" in its text is dropped, and no other one takes its place.
    """
    by_question: dict[str, list[int]] = {}
    for index, tree in enumerate(trees):
        if tree.answers():
            by_question.setdefault(tree.problem.question, []).append(index)
    chosen = []
    for own in by_question.values():
        for index, leaf in ranked_trajectories([trees[index] for index in own])[:n]:
            if ERROR_WORD not in trees[own[index]].response_text(leaf).lower():
                chosen.append((own[index], leaf))
    return chosen


def policy_rows(trees: Sequence[Tree], n: int = 2, *, seed: int = 0) -> list[tuple[str, str]]:
    """(question, response) of these trajectories, shuffled as the released script does it."""
    rows = [
        (trees[index].problem.question, trees[index].response_text(leaf).strip())
        for index, leaf in correct_trajectories(trees, n)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def preference_pairs(tree: Tree, config: PublishedSelection) -> list[PreferencePair]:
    """The pairs that the filters leave. Their weight counts what the group gave before (`train/train_RM.py`)."""
    return [
        PreferencePair(
            problem_id=tree.problem.id,
            prefix=tree.response_text(pair.prefix),
            chosen=tree.text[pair.chosen],
            rejected=tree.text[pair.rejected],
            kind="step",
            margin=pair.margin,
            weight=1.0 / (pair.positives * pair.negatives),
        )
        for pair in pair_candidates(tree, follow=config.follow)
        if keeps(tree, pair, config)
    ]


def keeps(tree: Tree, pair: PairCandidate, config: PublishedSelection) -> bool:
    """Whether the filters leave a pair."""
    return (
        pair.margin >= config.margin
        and edit_distance(tree.text[pair.chosen], tree.text[pair.rejected]) >= config.edit_distance
    )


def pair_candidates(tree: Tree, *, follow: str) -> list[PairCandidate]:
    """All pairs before the filters, level by level.

    Positives are the two children with the highest Q that have a correct answer below, negatives the two with the
    lowest that have a wrong one, code failures aside; a child may be both. One alone stands against up to four.
    """
    right, wrong = _answers_below(tree)
    pairs = []
    nodes = [ROOT_INDEX]
    for node in nodes:
        children = tree.children(node)
        best = sorted((child for child in children if right[child]), key=lambda child: -tree.q(child))
        worst = sorted((child for child in children if wrong[child]), key=tree.q)
        if not best or not worst:
            continue
        positives = best[:2]
        negatives = worst[: 4 if len(positives) == 1 else 2]
        positives = best[: 4 if len(negatives) == 1 else 2]
        for chosen in positives:
            for rejected in negatives:
                margin = tree.q(chosen) - tree.q(rejected)
                solution_margin = _completion(tree, chosen, right, -1) - _completion(tree, rejected, wrong, 1)
                if margin > 0 and solution_margin > 0:
                    pairs.append(
                        PairCandidate(
                            prefix=node,
                            chosen=chosen,
                            rejected=rejected,
                            margin=margin,
                            solution_margin=solution_margin,
                            positives=len(positives),
                            negatives=len(negatives),
                        )
                    )
        mixed = [child for child in children if right[child] and wrong[child]]
        if follow == "most_visited":
            mixed = sorted(mixed, key=lambda child: -tree.visits[child])[:1]
        nodes += mixed
    return pairs


def edit_distance(a: str, b: str) -> int:
    """The fewest insertions, deletions and replacements of letters that make `b` of `a` (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]


def _completion(tree: Tree, node: int, ends: Sequence[bool], sign: int) -> float:
    """The mean Q from `node` to an end, always over the child with the highest Q (sign -1) or the lowest (sign 1)."""
    q = [tree.q(node)]
    while below := [child for child in tree.children(node) if ends[child]]:
        node = min(below, key=lambda child: sign * tree.q(child))
        q.append(tree.q(node))
    return sum(q) / len(q)


def _answers_below(tree: Tree) -> tuple[list[bool], list[bool]]:
    """For each node: is a correct answer, a wrong answer at it or below it?"""
    right = [tree.kind[node] == Kind.ANSWER and tree.correct[node] == 1 for node in range(tree.size)]
    wrong = [tree.kind[node] == Kind.ANSWER and tree.correct[node] == 0 for node in range(tree.size)]
    for node in range(tree.size - 1, ROOT_INDEX, -1):  # children stand after their parents
        parent = tree.parent[node]
        right[parent] |= right[node]
        wrong[parent] |= wrong[node]
    return right, wrong


def _depth_first(tree: Tree) -> list[int]:
    """All nodes in the order of a walk that goes down before it goes on to the next sibling."""
    order, waiting = [], [ROOT_INDEX]
    while waiting:
        order.append(node := waiting.pop())
        waiting += reversed(tree.children(node))
    return order
