"""False positives: right answers by wrong programs.

A program is held against the worked example of its problem: it must use the same numbers as often, and print the same
on fresh numbers, when every number literal is replaced by another one, the same for equal literals and in both
programs. A program that skips a term or gets a right answer by luck fails one of the two. A superfluous step that does
no harm fails as well, so the share is an upper bound.
"""

import random
import re
from collections.abc import Sequence

from rstar_jax.problems.procedural import worked_program
from rstar_jax.search import Tree, correct_trajectories
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Request, Verifier

_DRAWS = 2
_LITERAL = re.compile(r"\b\d+\b")


def fresh_numbers(program: str, draw: int) -> str:
    """`program` with every integer literal replaced; equal literals by equal numbers, different by different ones."""

    def replace(match: re.Match) -> str:
        return str(random.Random(f"{match.group()}/{draw}").randrange(10**5, 10**6))

    return _LITERAL.sub(replace, program)


def false_positive_share(trees: Sequence[Tree], verifier: Verifier, *, trajectories: int) -> tuple[float, int]:
    """(share of selected correct trajectories whose program is wrong, how many were checked).

    Only procedural problems can be checked: the others carry no right program.
    """
    checked: list[tuple[str, str]] = []
    for tree in trees:
        if tree.problem.family is None:
            continue
        for leaf in correct_trajectories(tree, trajectories):
            code = "\n".join(steps.code(tree.text[node]) for node in tree.path(leaf)[1:-1])
            checked.append((code, "\n".join(worked_program(tree.problem))))
    if not checked:
        return 0.0, 0
    requests = [
        Request(prefix="", candidates=tuple(fresh_numbers(program, draw) for program in pair for draw in range(_DRAWS)))
        for pair in checked
    ]
    wrong = 0
    for (code, right), outcomes in zip(checked, verifier.run(requests), strict=True):
        ours, reference = outcomes[:_DRAWS], outcomes[_DRAWS:]
        same = all(a.ok and b.ok and a.output == b.output for a, b in zip(ours, reference, strict=True))
        wrong += not (same and sorted(_LITERAL.findall(code)) == sorted(_LITERAL.findall(right)))
    return wrong / len(checked), len(checked)
