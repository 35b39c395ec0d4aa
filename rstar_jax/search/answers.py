"""Chooses and counts answers: the best by value, votes over classes of equal answers, pass@k."""

import dataclasses
from collections.abc import Sequence

from rstar_jax.search.protocols import Grader
from rstar_jax.search.tree import Tree

RULES = ("best", "majority", "top_majority", "weighted_majority")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredAnswer:
    """One answer of a problem. score: of its whole solution, by a PPM or an ORM, in [-1, 1]; 0 without either."""

    answer: str
    score: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoteConfig:
    """How one answer is chosen from those of a problem's searches or samples.

    rule: which class of equal answers wins; of the class, the answer with the highest score. One answer each of four
        trajectories, on the 150 held-out problems of two runs like `gin/local.gin`: "best" is right on 0.79 and 0.57,
        "majority" on 0.81 and 0.66, "weighted_majority" on 0.83 and 0.66. With one answer all rules choose the same.
        "best": that of the highest score (paper: the PPM chooses among the trajectories).
        "majority": the largest.
        "top_majority": the largest among the `top` answers with the highest scores (README of the released code: its
            published figures; `top_n_major_vote`).
        "weighted_majority": that of the largest sum of weights (1 + score) / 2. The released code
            (`top_n_weighted_major_vote`) sums the scores themselves, so that an answer with a score below 0 loses by
            being found again.
    top: of "top_majority" (`top_n`: 4).
    answers_per_tree: how many answers, those with the highest scores, a search gives to the vote
        (`max_node_per_tree`: 1).
    """

    rule: str = "weighted_majority"
    top: int = 4
    answers_per_tree: int = 1

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"VoteConfig.rule must be one of {RULES}, got {self.rule!r}")
        for name in ("top", "answers_per_tree"):
            if getattr(self, name) < 1:
                raise ValueError(f"VoteConfig.{name} must be at least 1, got {getattr(self, name)}")


def best(tree: Tree) -> int | None:
    """The answer leaf with the highest Q (at test time: by the PPM), the first of equals; None without an answer."""
    return max(tree.answers(), key=tree.q, default=None)


def tree_answers(tree: Tree, most: int) -> list[ScoredAnswer]:
    """The answers of at most `most` leaves, those with the highest Q (at test time: the PPM's score), best first."""
    leaves = sorted(tree.answers(), key=lambda leaf: (-tree.q(leaf), leaf))[:most]
    return [ScoredAnswer(answer=tree.answer[leaf], score=tree.q(leaf)) for leaf in leaves]


def vote(rows: Sequence[Sequence[ScoredAnswer]], grader: Grader, config: VoteConfig) -> list[str | None]:
    """The chosen answer of each problem, None without an answer. The grader compares answers with each other only."""
    if config.rule == "best":
        classes: Sequence[Sequence[int]] = [range(len(row)) for row in rows]
    else:
        classes = equivalence_classes([[answer.answer for answer in row] for row in rows], grader)
    return [choose(row, own, config) for row, own in zip(rows, classes, strict=True)]


def choose(answers: Sequence[ScoredAnswer], classes: Sequence[int], config: VoteConfig) -> str | None:
    """The answer that wins by `config`, None without one.

    classes: the class of each answer. Of equally large classes the one with the larger sum of weights wins, then the
    one with the highest score, then the first.
    """
    order = sorted(range(len(answers)), key=lambda i: -answers[i].score)
    if config.rule == "top_majority":
        order = order[: config.top]
    weights: dict[int, list[float]] = {}
    for i in order:
        weights.setdefault(classes[i], []).append((1 + answers[i].score) / 2)
    if config.rule == "best" or not order:
        return answers[order[0]].answer if order else None
    if config.rule == "weighted_majority":
        winner = max(weights, key=lambda own: sum(weights[own]))
    else:
        winner = max(weights, key=lambda own: (len(weights[own]), sum(weights[own])))
    return next(answers[i].answer for i in order if classes[i] == winner)


def equivalence_classes(rows: Sequence[Sequence[str]], grader: Grader) -> list[list[int]]:
    """The class of each answer of each problem; a problem's classes are numbered in the order in which they begin.

    An answer belongs to the first class whose first answer it equals, one or the other taken as gold. As many calls of
    the grader as the problem with the most classes has, each for all problems at once; what is undecided is unequal.
    """
    class_of: list[dict[str, int]] = [{} for _ in rows]
    without = [list(dict.fromkeys(row)) for row in rows]
    number = 0
    while any(without):
        asked = [(own[0], answer) for own in without for answer in own[1:]]
        grades = grader.grade([*asked, *((answer, first) for first, answer in asked)]) if asked else []
        equal = iter([True in pair for pair in zip(grades[: len(asked)], grades[len(asked) :], strict=True)])
        for i, own in enumerate(without):
            members = own[:1] + [answer for answer in own[1:] if next(equal)]
            class_of[i].update(dict.fromkeys(members, number))
            without[i] = [answer for answer in own if answer not in class_of[i]]
        number += 1
    return [[own[answer] for answer in row] for own, row in zip(class_of, rows, strict=True)]


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate of P(at least one of k samples is correct) from n samples: 1 - C(n-c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), Eq. 1, as a product that stays small.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass_at_k needs 1 <= k <= n and 0 <= correct <= n, got n={n}, correct={correct}, k={k}")
    none_correct = 1.0
    for i in range(k):
        none_correct *= max(n - correct - i, 0) / (n - i)
    return 1.0 - none_correct
