"""Runs untrusted code in walled subprocesses and grades answers there too.

    with Verifier(Limits(cpu_seconds=1.0)) as verifier:
        [[outcome]] = verifier.run([Request(prefix="x = 2", candidates=("print(x + 2)",))])
        outcome.verdict, outcome.output  # Verdict.OK, "4\\n"

What is promised, and what is not, stands in `rstar_jax.verifier.sandbox.isolation`.
"""

from rstar_jax.verifier.grading import Grader
from rstar_jax.verifier.protocol import Limits, Outcome, Request, Verdict
from rstar_jax.verifier.verifier import Verifier

__all__ = ["Grader", "Limits", "Outcome", "Request", "Verdict", "Verifier"]
