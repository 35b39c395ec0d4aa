"""Chooses and counts answers: the best by value, the majority, pass@k."""

import operator
from collections.abc import Callable, Sequence

from rstar_jax.search.tree import Tree


def best(tree: Tree) -> int | None:
    """The answer leaf with the highest Q (at test time: by the PPM), the first of equals; None without an answer."""
    return max(tree.answers(), key=tree.q, default=None)


def majority(answers: Sequence[str], *, equal: Callable[[str, str], bool] = operator.eq) -> str | None:
    """The first answer of the largest class of equal answers; of equally large classes the one seen first.

    answers: as the grader normalises them. equal: compares an answer with the first of a class. None without answers.
    """
    classes: list[list[str]] = []
    for answer in answers:
        for members in classes:
            if equal(members[0], answer):
                members.append(answer)
                break
        else:
            classes.append([answer])
    return max(classes, key=len)[0] if classes else None


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
