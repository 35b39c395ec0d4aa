"""Accuracy on problems with known answers: greedy, and of independent samples their votes, best of N and pass@k."""

import logging
from collections.abc import Sequence

from rstar_jax.problems import Problem
from rstar_jax.problems.problem import level_order
from rstar_jax.search import (
    StepSampler,
    StepScorer,
    VoteConfig,
    pass_at_k,
    sample_solutions,
    solution_answers,
    vote,
)
from rstar_jax.verifier import Grader, Verifier

_log = logging.getLogger(__name__)


def greedy_accuracy(
    problems: Sequence[Problem], *, sampler: StepSampler, verifier: Verifier, grader: Grader, max_prefix_tokens: int
) -> list[float]:
    """1.0 or 0.0 a problem: is the policy's most likely solution right? `sampler` must have temperature 0."""
    solutions = sample_solutions(
        problems, 1, sampler=sampler, verifier=verifier, max_prefix_tokens=max_prefix_tokens, seed=0
    )
    answers = [solution.answer for (solution,) in solutions]
    return grade_answers([problem.answers for problem in problems], answers, grader)


def sampled_accuracy(
    problems: Sequence[Problem],
    samples: int,
    *,
    sampler: StepSampler,
    verifier: Verifier,
    grader: Grader,
    max_prefix_tokens: int,
    seed: int,
    scorer: StepScorer | None = None,
) -> dict[str, list[float]]:
    """Values a problem, by name, from as many independently sampled solutions as `samples` says.

    majority_accuracy: the vote of all samples, without scores. best_of_n_accuracy: the answer of the solution that
    `scorer`, a PPM or an ORM, values most; left out without a scorer. pass_at_`samples`: any of them is right.

    A test-time search with the same seed draws from its root with the same random numbers, so that the two differ less.
    """
    solutions = sample_solutions(
        problems, samples, sampler=sampler, verifier=verifier, max_prefix_tokens=max_prefix_tokens, seed=seed
    )
    golds = [problem.answers for problem in problems]
    plain = solution_answers(problems, solutions, sampler=sampler, seed=seed)
    chosen = {"majority_accuracy": vote(plain, grader, VoteConfig(rule="majority"))}
    if scorer is not None:
        scored = solution_answers(problems, solutions, sampler=sampler, scorer=scorer, seed=seed)
        chosen["best_of_n_accuracy"] = vote(scored, grader, VoteConfig(rule="best"))
    values = {name: grade_answers(golds, answers, grader) for name, answers in chosen.items()}
    flat = [(problem.answers, own.answer) for problem, row in zip(problems, plain, strict=True) for own in row]
    right = iter(grade_answers([gold for gold, _ in flat], [answer for _, answer in flat], grader))
    hits = [sum(next(right) for _ in row) for row in plain]
    values[f"pass_at_{samples}"] = [pass_at_k(samples, int(own), samples) for own in hits]
    return values


def grade_answers(golds: Sequence[tuple[str, ...]], answers: Sequence[str | None], grader: Grader) -> list[float]:
    """1.0 where the answer is one of its golds. None is wrong, and so is, said in the log, an undecided one."""
    asked = [i for i, answer in enumerate(answers) if answer is not None]
    grades = grader.grade([(golds[i], answers[i]) for i in asked])
    if undecided := grades.count(None):
        _log.warning("evaluation: %d of %d answers are undecided and count as wrong", undecided, len(asked))
    right = [0.0] * len(answers)
    for i, grade in zip(asked, grades, strict=True):
        right[i] = 1.0 if grade else 0.0
    return right


def by_level(problems: Sequence[Problem], values: Sequence[float], frontier: Sequence[str]) -> dict[str | None, float]:
    """Means by level; under None the mean over the frontier's levels (over all problems, if none has a level)."""
    groups: dict[str, list[float]] = {}
    for problem, value in zip(problems, values, strict=True):
        if problem.level is not None:
            groups.setdefault(problem.level, []).append(value)
    levels = sorted(groups, key=level_order)
    means: dict[str | None, float] = {level: sum(groups[level]) / len(groups[level]) for level in levels}
    headline = [means[level] for level in frontier if level in means] or list(values)
    means[None] = sum(headline) / len(headline)
    return means
