"""Accuracy on problems with known answers: greedy, majority, pass@k, and search judged by the PPM."""

from collections.abc import Callable, Sequence

from rstar_jax.problems import Problem
from rstar_jax.search import (
    SearchConfig,
    SearchStats,
    StepSampler,
    StepScorer,
    Tree,
    best,
    majority,
    pass_at_k,
    sample_solutions,
    search,
)
from rstar_jax.verifier import Grader, Verifier


def greedy_accuracy(
    problems: Sequence[Problem], *, sampler: StepSampler, verifier: Verifier, grader: Grader, max_prefix_tokens: int
) -> list[float]:
    """1.0 or 0.0 a problem: is the policy's most likely solution right? `sampler` must have temperature 0."""
    solutions = sample_solutions(
        problems, 1, sampler=sampler, verifier=verifier, max_prefix_tokens=max_prefix_tokens, seed=0
    )
    answers = [solution.answer for (solution,) in solutions]
    return grade_answers([problem.answer for problem in problems], answers, grader)


def sampled_accuracy(
    problems: Sequence[Problem],
    samples: int,
    *,
    sampler: StepSampler,
    verifier: Verifier,
    grader: Grader,
    max_prefix_tokens: int,
    seed: int,
) -> tuple[list[float], list[float]]:
    """(majority vote right, pass@samples) a problem, from as many independently sampled solutions."""
    solutions = sample_solutions(
        problems, samples, sampler=sampler, verifier=verifier, max_prefix_tokens=max_prefix_tokens, seed=seed
    )
    answers = [[solution.answer for solution in row] for row in solutions]
    voted = [majority([answer for answer in row if answer is not None]) for row in answers]
    flat = [(problem.answer, answer) for problem, row in zip(problems, answers, strict=True) for answer in row]
    right = grade_answers([gold for gold, _ in flat], [answer for _, answer in flat], grader)
    passed = [
        pass_at_k(samples, int(sum(right[i * samples : (i + 1) * samples])), samples) for i in range(len(problems))
    ]
    return grade_answers([problem.answer for problem in problems], voted, grader), passed


def search_answers(
    problems: Sequence[Problem],
    *,
    config: SearchConfig,
    sampler: StepSampler,
    scorer: StepScorer,
    verifier: Verifier,
    seed: int,
    in_flight: int,
    on_progress: Callable[[SearchStats], None] | None = None,
) -> tuple[list[Tree], list[str | None]]:
    """Test-time search: the trees, and of each the answer whose trajectory the PPM values most. No gold is given."""
    trees = search(
        problems,
        sampler=sampler,
        verifier=verifier,
        grader=None,
        scorer=scorer,
        config=config,
        seed=seed,
        in_flight=in_flight,
        on_progress=on_progress,
    )
    leaves = [best(tree) for tree in trees]
    return trees, [None if leaf is None else tree.answer[leaf] for tree, leaf in zip(trees, leaves, strict=True)]


def grade_answers(golds: Sequence[str], answers: Sequence[str | None], grader: Grader) -> list[float]:
    """1.0 where the answer is right; no answer and an undecided one are wrong."""
    asked = [i for i, answer in enumerate(answers) if answer is not None]
    grades = grader.grade([(golds[i], answers[i]) for i in asked])
    right = [0.0] * len(answers)
    for i, grade in zip(asked, grades, strict=True):
        right[i] = 1.0 if grade else 0.0
    return right


def by_level(problems: Sequence[Problem], values: Sequence[float], frontier: Sequence[int]) -> dict[int | None, float]:
    """Means by level; under None the mean over the frontier's levels (over all problems, if none has a level)."""
    groups: dict[int, list[float]] = {}
    for problem, value in zip(problems, values, strict=True):
        if problem.level is not None:
            groups.setdefault(problem.level, []).append(value)
    means: dict[int | None, float] = {level: sum(group) / len(group) for level, group in sorted(groups.items())}
    headline = [means[level] for level in frontier if level in means] or list(values)
    means[None] = sum(headline) / len(headline)
    return means
