"""Test-time search with several trajectories a problem: the answers they vote for, and what more of them bring."""

import dataclasses
from collections.abc import Callable, Sequence

from rstar_jax.evaluation.accuracy import grade_answers
from rstar_jax.problems import Problem
from rstar_jax.search import (
    RULES,
    SchedulerConfig,
    ScoredAnswer,
    SearchConfig,
    SearchStats,
    StepSampler,
    StepScorer,
    Tree,
    VoteConfig,
    choose,
    equivalence_classes,
    pass_at_k,
    search_all,
    tree_answers,
    vote,
)
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Grader, Verifier

PASS = "pass"


def search_trees(
    problems: Sequence[Problem],
    *,
    config: SearchConfig,
    trajectories: int,
    sampler: StepSampler,
    scorer: StepScorer | None,
    verifier: Verifier,
    seed: int,
    scheduling: SchedulerConfig,
    prompt: Callable[[str], str] = steps.prompt,
    on_progress: Callable[[SearchStats], None] | None = None,
) -> list[list[Tree]]:
    """Test-time search: `trajectories` trees of each problem, independent of each other. No gold is given."""
    trees = search_all(
        problems,
        sampler=sampler,
        verifier=verifier,
        grader=None,
        scorer=scorer,
        config=config,
        seed=seed,
        trajectories=trajectories,
        scheduling=scheduling,
        prompt=prompt,
        on_progress=on_progress,
    )
    return [trees[i : i + trajectories] for i in range(0, len(trees), trajectories)]


def search_answers(trees: Sequence[Sequence[Tree]], grader: Grader, config: VoteConfig) -> list[str | None]:
    """The answer that the trees of each problem vote for. The trees hold no gold; the grader compares their answers."""
    rows = [[answer for tree in row for answer in tree_answers(tree, config.answers_per_tree)] for row in trees]
    return vote(rows, grader, config)


def scaling_curve(
    problems: Sequence[Problem], trees: Sequence[Sequence[Tree]], grader: Grader, config: VoteConfig
) -> dict[str, dict[int, list[float]]]:
    """{rule of `VoteConfig`, or "pass": {trajectories: 1.0 or 0.0 a problem}} for 1, 2, 4, ... and all trajectories.

    n trajectories are the first n trees of each problem: one search gives the whole curve (paper: Figure 3). "pass" is
    the unbiased estimate, from all trees, that the best answer of any of n is right.
    """
    total = len(trees[0])
    sizes = sorted({2**i for i in range(total.bit_length()) if 2**i <= total} | {total})
    answers = [[tree_answers(tree, config.answers_per_tree) for tree in row] for row in trees]
    classes = equivalence_classes([[own.answer for own in _joined(row)] for row in answers], grader)
    chosen: dict[tuple[str, int], list[str | None]] = {}
    for rule in RULES:
        for size in sizes:
            voters = [_joined(row[:size]) for row in answers]
            chosen[rule, size] = [
                choose(own, labels[: len(own)], dataclasses.replace(config, rule=rule))
                for own, labels in zip(voters, classes, strict=True)
            ]
    # All is chosen: from here on the gold is looked at.
    golds = [problem.answers for problem in problems]
    curve: dict[str, dict[int, list[float]]] = {rule: {} for rule in (*RULES, PASS)}
    for (rule, size), own in chosen.items():
        curve[rule][size] = [float(right is True) for right in grade_answers(golds, own, grader)]
    firsts = [own[0].answer if own else None for row in answers for own in row]
    right = grade_answers([gold for gold in golds for _ in range(total)], firsts, grader)
    hits = [right[i : i + total].count(True) for i in range(0, len(right), total)]
    for size in sizes:
        curve[PASS][size] = [pass_at_k(total, own, size) for own in hits]
    return curve


def _joined(row: Sequence[Sequence[ScoredAnswer]]) -> list[ScoredAnswer]:
    return [answer for own in row for answer in own]
