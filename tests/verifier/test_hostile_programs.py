"""Hostile programs on four kinds of host: none succeeds where it must not, harms the next, writes, or stays."""

import json
import os
import re
import subprocess
import sys

import pytest

from rstar_jax.verifier import Verdict
from tests.verifier.test_isolation import ESCAPES

CANARY = "import math, random\nassert len([1, 2]) == 2\nprint(math.gcd(4, 6), random.random())  # "
PREFIXES = ("", "pass")
HOSTS = {
    "root": [],
    "root in a container": ["--no-namespaces"],
    "user": ["--uid=12345"],
    "user in a container": ["--uid=12345", "--no-namespaces"],
}
LAYERS = {
    "root": "namespaces, limits, no_new_privileges, landlock, seccomp",
    "root in a container": "nobody, limits, no_new_privileges, landlock, seccomp",
    "user": "namespaces, limits, no_new_privileges, landlock, seccomp",
    "user in a container": "limits, no_new_privileges, landlock, seccomp",
}
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


def run_on(host, folder, programs):
    """The outcomes of each program and of a canary after it in each kind of cell, alone and after a prefix."""
    if os.getuid() != 0 or sys.platform != "linux":
        pytest.skip("takes root to look like another host")
    folder.chmod(0o777)  # so that nothing but the sandbox keeps a program from writing here
    requests = [
        {"prefix": prefix, "candidates": [program, f"{CANARY}{i}", f"{CANARY}{i} numpy"]}
        for i, program in enumerate(["pass", *programs])
        for prefix in PREFIXES
    ]
    limits = [f"--gin.verifier.Limits.{name}" for name in ("cpu_seconds=0.5", "wall_seconds=4.0")]
    command = [sys.executable, "-m", "rstar_jax.main", "verify", "--input=-", "--output=-", *limits]
    wrapped = [sys.executable, "-m", "tests.verifier.hosts", *HOSTS[host], "--", *command]
    text = "\n".join(map(json.dumps, requests))
    done = subprocess.run(wrapped, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"isolation: {LAYERS[host]}" in done.stderr
    rows = [json.loads(line)["outcomes"] for line in done.stdout.splitlines()]
    clean = rows[0][1]["output"]
    assert len(rows) == len(requests) and re.fullmatch(r"2 0\.\d+\n", clean)
    assert {outcome["output"] for row in rows for outcome in row[1:]} == {clean}
    return [row[0] for row in rows[len(PREFIXES) :]]


@pytest.mark.parametrize("host", HOSTS)
def test_no_way_out_on_any_host(tmp_path, host):
    programs = [*ESCAPES.values(), f"open({str(tmp_path / 'written')!r}, 'w')", "open('/etc/passwd')"]
    outcomes = run_on(host, tmp_path, programs)
    assert [outcome["verdict"] for outcome in outcomes] == ["error"] * len(programs) * len(PREFIXES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_hostile_programs(table, tmp_path, host):
    rows = table("hostile_programs.jsonl")
    outcomes = run_on(host, tmp_path, [row["program"].replace("{DIR}", str(tmp_path)) for row in rows])
    wrong = []
    for row, outcome in zip([row for row in rows for _ in PREFIXES], outcomes, strict=True):
        allowed = next(verdicts for words, verdicts in EXPECTATIONS if re.search(words, row["expect"]))
        if outcome["verdict"] not in DIFFERENT.get(row["name"], allowed):
            wrong.append((row["name"], row["expect"], outcome))
    assert wrong == []
    assert list(tmp_path.iterdir()) == []
