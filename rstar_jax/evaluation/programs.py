"""False positives: right answers by wrong programs.

A program is held against the worked example of its problem: both must print the same result when the question's numbers
are replaced by others. A program that skips a term, guesses a rule or is right by luck fails.
"""

from collections.abc import Sequence

from rstar_jax.problems.families import FAMILIES
from rstar_jax.search import Tree
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Outcome, Request, Verifier

_DRAWS = 2


def wrong_programs(chosen: Sequence[tuple[Tree, int]], verifier: Verifier) -> tuple[int, int]:
    """(how many of some correct trajectories have a wrong program, how many were checked).

    chosen: trees and answer leaves. Only procedural problems can be checked: the others carry no right program.
    """
    requests = []
    for tree, leaf in chosen:
        problem = tree.problem
        if problem.source not in FAMILIES:
            continue
        family = FAMILIES[problem.source]
        right = "\n".join(family.program(problem.question))
        code = "\n".join(steps.code(tree.text[node]) for node in tree.path(leaf)[1:-1])
        programs = [family.fresh(text, problem.question, draw) for text in (code, right) for draw in range(_DRAWS)]
        requests.append(Request(prefix="", candidates=tuple(programs)))
    wrong = 0
    for outcomes in verifier.run(requests):
        ours, reference = outcomes[:_DRAWS], outcomes[_DRAWS:]
        printed = [_result(outcome) for outcome in ours]
        wrong += None in printed or printed != [_result(outcome) for outcome in reference]
    return wrong, len(requests)


def _result(outcome: Outcome) -> str | None:
    """The first word of the output: what stands behind it is the program's opinion of itself."""
    return outcome.output.split()[0] if outcome.ok and outcome.output.split() else None
