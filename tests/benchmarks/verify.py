"""Executions and grades a second and core, beside a process for each program and beside replaying: one JSON line.

    python -m tests.benchmarks.verify [--pairs=FILE] [--cores=2]

trivial_per_second_core: programs of one line. sympy_candidates_per_second_core: eight candidates behind prefixes of one
to seven steps: the released code's own examples. subprocess_ratio: these against `subprocess.run` of prefix and
candidate together. replay_ratio: against one process that imported sympy and runs prefix and candidate with `exec`, as
the released code does; it keeps sympy's caches from one to the next. grades_per_second_core: of pairs in FILE ({"gold",
"answer"} a line), or of some that are made up here. fork_milliseconds: to fork a bare interpreter and see it end.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from rstar_jax.verifier import Grader, Limits, Request, Verifier

# The two sympy programs among the released code's examples, one after the other, with numbers that vary.
STEPS = (
    "from sympy import symbols, expand, Eq, solve, sqrt\n\n# Define the variable x\nx = symbols('x')",
    "# Define the expression\nexpression = x**2 * (1 - {0}*x)**6",
    "# Expand the expression\nexpanded_expression = expand(expression)",
    "# Extract the coefficient of x^5\ncoefficient = expanded_expression.coeff(x, 5)\nshift = {0}",
    "# Now print the coefficient\nprint(coefficient, {0})",
    "# Define the equation\nequation = Eq(sqrt({0}*x + 5) / sqrt(2*{0}*x + 5), sqrt(5) / 3)",
    "# Solve the equation for x\nsolution = solve(equation, x)\nroom = {0}",
    "# Now print the final answer\nprint(solution, {0})",
)
CANDIDATES = 8
REPLAY = """
import json, sys, time
import sympy
rows = json.load(sys.stdin)
start = time.perf_counter()
for prefix, candidate in rows:
    exec(prefix + "\\n" + candidate, {"print": lambda *_: None})
print(time.perf_counter() - start)
"""


def expansions(trees: int) -> list[Request]:
    """`trees` programs of eight steps, each searched along its length."""
    requests = []
    for tree in range(trees):
        for depth in range(1, len(STEPS)):
            prefix = "\n".join(step.format(tree + 2) for step in STEPS[:depth])
            candidates = tuple(STEPS[depth].format(100 * tree + candidate + 2) for candidate in range(CANDIDATES))
            requests.append(Request(prefix=prefix, candidates=candidates))
    return requests


def seconds(work) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def by_subprocess(requests: list[Request]) -> float:
    """Candidates a second on one core, each a new process."""
    programs = [f"{request.prefix}\n{request.candidates[0]}" for request in requests]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def work() -> None:
        for program in programs:
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)

    return len(programs) / seconds(work)


def by_replay(requests: list[Request]) -> float:
    """Candidates a second on one core, in one process that runs every prefix again."""
    rows = [(request.prefix, candidate) for request in requests for candidate in request.candidates]
    done = subprocess.run([sys.executable, "-c", REPLAY], input=json.dumps(rows), capture_output=True, text=True)
    return len(rows) / float(done.stdout)


def fork_milliseconds() -> float:
    """The median time from a fork of a bare interpreter to the end of its child."""
    program = (
        "import os, time\ntimes = []\nfor _ in range(200):\n    start = time.perf_counter()\n    pid = os.fork()\n"
        "    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)\n    times.append(time.perf_counter() - start)\n"
        "print(1e3 * sorted(times)[100])"
    )
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout)


def made_up_pairs() -> list[tuple[str, str]]:
    """Equal and different answers of many kinds, each new to the grader."""
    kinds = (
        (r"\frac{{{0}}}{{7}}", "{0}/7"),
        (r"{0}\sqrt{{3}}", r"\sqrt{{3}} \cdot {0}"),
        ("x^2 + {0}", "{0} + x^2"),
        ("({0}, 2)", "(2, {0})"),
        ("{0}", "{0}.0"),
        (r"{0}\pi", "{0}*pi"),
    )
    return [(gold.format(n), answer.format(n)) for n in range(10, 60) for gold, answer in kinds]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--trivial", type=int, default=4000)
    parser.add_argument("--trees", type=int, default=12)
    flags = parser.parse_args()
    trivial = [
        Request(prefix="", candidates=tuple(f"print({i} + {j})" for j in range(8))) for i in range(flags.trivial // 8)
    ]
    requests = expansions(flags.trees)
    with Verifier(Limits(), workers=flags.cores) as verifier:
        # Long enough that every worker takes a share, and has both of its cells when the clock starts.
        warm = [f"import {module}, time\ntime.sleep(0.2)  # {i}" for i in range(20) for module in ("sympy", "math")]
        verifier.run([Request(prefix="", candidates=tuple(warm))])
        trivial_rate = 8 * len(trivial) / seconds(lambda: verifier.run(trivial)) / flags.cores
        rows = []
        took = seconds(lambda: rows.extend(verifier.run(requests)))
    bad = [outcome for row in rows for outcome in row if not outcome.ok]
    if bad:
        raise RuntimeError(f"{len(bad)} programs did not run, for example {bad[0]}")
    rate = CANDIDATES * len(requests) / took / flags.cores
    pairs = made_up_pairs()
    if flags.pairs:
        with open(flags.pairs) as file:
            pairs = [(row["gold"], row["answer"]) for row in map(json.loads, file)]
    with Grader(flags.cores) as grader:
        grader.grade([("x + 1", f"1 + x + 0 \\cdot {i}") for i in range(flags.cores)])
        grade_rate = len(set(pairs)) / seconds(lambda: grader.grade(pairs)) / flags.cores
    line = {
        "cores": flags.cores,
        "fork_milliseconds": fork_milliseconds(),
        "trivial_per_second_core": trivial_rate,
        "sympy_candidates_per_second_core": rate,
        "subprocess_ratio": rate / by_subprocess(requests[:: len(requests) // 7]),
        "replay_ratio": rate / by_replay(requests),
        "grades_per_second_core": grade_rate,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
