"""The shared table of hostile programs: none succeeds where it must not, none is our fault, none harms the next."""

import re

import pytest

from rstar_jax.verifier import Limits, Request, Verdict, Verifier

CANARY = "import math, random\nassert len([1, 2]) == 2\nprint(math.gcd(4, 6), random.random())"
# What the table expects, in words, and the verdicts that honour it. The first that matches counts.
EXPECTATIONS = [
    (r"^ok -1|^ok|^blocked", {Verdict.OK}),
    (r"^timeout:wall", {Verdict.TIMEOUT_WALL}),
    (r"^timeout\|ok", {Verdict.TIMEOUT_CPU, Verdict.OK}),
    (r"^timeout", {Verdict.TIMEOUT_CPU}),
    (r"MemoryError\|timeout", {Verdict.MEMORY, Verdict.TIMEOUT_CPU}),
    (r"output limit", {Verdict.OUTPUT_LIMIT}),
    (r"MemoryError", {Verdict.MEMORY, Verdict.ERROR}),
    (r"^early exit", {Verdict.EARLY_EXIT}),
    (r"^exit", {Verdict.EXIT}),
    (r"^crash\|error\|ok", {Verdict.CRASH, Verdict.ERROR, Verdict.OK}),
    (r"crash", {Verdict.CRASH, Verdict.ERROR, Verdict.MEMORY, Verdict.TIMEOUT_CPU, Verdict.REJECTED}),
    (r"harmless", {Verdict.ERROR, Verdict.OK}),
    (r"^error", {Verdict.ERROR}),
]
# Where this verifier differs from the table, on purpose.
DIFFERENT = {
    "daemon thread printing after end": {Verdict.ERROR},  # no threads: what they print would depend on timing
    "warnings/noise to stderr": {Verdict.OK},  # nobody reads the standard error, so it has no limit
    "dup2 over stdout": {Verdict.OK, Verdict.ERROR},  # the standard input can be written to: it is the null device
    "deep nested list literal via eval": {Verdict.OK, Verdict.ERROR},  # depends on the version of Python
    "from __future__ barry": {Verdict.OK, Verdict.ERROR},  # as CPython's own compile()
}


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "pass"], ids=["alone", "after a prefix"])
def test_hostile_programs(table, tmp_path, prefix):
    (tmp_path / "canary").mkdir()
    limits = Limits(cpu_seconds=1.0, wall_seconds=8.0)
    wrong = []
    with Verifier(limits, workers=2) as verifier:
        if not {"seccomp", "landlock"} <= set(verifier.layers):
            pytest.skip("the table is for hosts with seccomp and landlock")
        [[clean]] = verifier.run([Request(prefix=prefix, candidates=(CANARY,))])
        for i, row in enumerate(table("hostile_programs.jsonl")):
            program = row["program"].replace("{DIR}", str(tmp_path))
            allowed = next(verdicts for words, verdicts in EXPECTATIONS if re.search(words, row["expect"]))
            allowed = DIFFERENT.get(row["name"], allowed)
            [[outcome, canary]] = verifier.run([Request(prefix=prefix, candidates=(program, f"{CANARY}  # {i}"))])
            if outcome.verdict not in allowed or canary.output != clean.output:
                wrong.append((row["name"], row["expect"], outcome, canary))
    assert wrong == []
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]
