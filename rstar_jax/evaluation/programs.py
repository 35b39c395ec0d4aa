"""False positives: right answers by wrong programs.

A program is held against the worked example of its problem: both must print the same result when the question's numbers
are replaced by others. A program that skips a term, guesses a rule or is right by luck fails.
"""

from collections.abc import Sequence

from rstar_jax.problems.families import FAMILIES
from rstar_jax.search import Tree, correct_trajectories
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Outcome, Request, Verifier

_DRAWS = 2


def false_positive_share(trees: Sequence[Tree], verifier: Verifier, *, trajectories: int) -> tuple[float, int]:
    """(share of selected correct trajectories whose program is wrong, how many were checked).

    Only procedural problems can be checked: the others carry no right program.
    """
    requests = []
    for tree in trees:
        problem = tree.problem
        if problem.source not in FAMILIES:
            continue
        family = FAMILIES[problem.source]
        right = "\n".join(family.program(problem.question))
        for leaf in correct_trajectories(tree, trajectories):
            code = "\n".join(steps.code(tree.text[node]) for node in tree.path(leaf)[1:-1])
            programs = [family.fresh(text, problem.question, draw) for text in (code, right) for draw in range(_DRAWS)]
            requests.append(Request(prefix="", candidates=tuple(programs)))
    if not requests:
        return 0.0, 0
    wrong = 0
    for outcomes in verifier.run(requests):
        ours, reference = outcomes[:_DRAWS], outcomes[_DRAWS:]
        printed = [_result(outcome) for outcome in ours]
        wrong += None in printed or printed != [_result(outcome) for outcome in reference]
    return wrong / len(requests), len(requests)


def _result(outcome: Outcome) -> str | None:
    """The first word of the output: what stands behind it is the program's opinion of itself."""
    return outcome.output.split()[0] if outcome.ok and outcome.output.split() else None
