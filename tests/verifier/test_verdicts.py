"""Every way in which a program can end has its verdict, and none of them can be faked by accident."""

import pytest

from rstar_jax.verifier import Request, Verdict

PREFIXES = ("", "pass")  # the two ways through a cell: forked by the cell itself, and by a process that ran a prefix

PROGRAMS = {
    "print(1 + 1)": (Verdict.OK, "2\n"),
    "": (Verdict.OK, ""),
    "1 / 0": (Verdict.ERROR, ""),
    "print('a')\nx =": (Verdict.ERROR, ""),
    "raise KeyboardInterrupt": (Verdict.ERROR, ""),
    "f = lambda n: f(n + 1)\nf(0)": (Verdict.ERROR, ""),
    "input()": (Verdict.ERROR, ""),
    "print('a')\nimport sys\nsys.exit()": (Verdict.EXIT, "a\n"),
    "print('a')\nquit()": (Verdict.EXIT, "a\n"),
    "print('a')\nimport os\nos._exit(0)": (Verdict.EARLY_EXIT, "a\n"),
    "import os\nos._exit(97)": (Verdict.EARLY_EXIT, ""),
    "while True: pass": (Verdict.TIMEOUT_CPU, ""),
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass": (Verdict.TIMEOUT_CPU, ""),
    "9**9**9": (Verdict.TIMEOUT_CPU, ""),  # in C, deaf to signals
    "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E": (Verdict.TIMEOUT_CPU, ""),
    "print('a')\nimport time\ntime.sleep(10**6)": (Verdict.TIMEOUT_WALL, "a\n"),
    "x = 'a' * (8 << 30)": (Verdict.MEMORY, ""),
    "x = []\nwhile True: x.append(bytes(1 << 26))": (Verdict.MEMORY, ""),
    "import ctypes\nctypes.string_at(0)": (Verdict.CRASH, ""),
    "import os\nos.abort()": (Verdict.CRASH, ""),
    "print('x' * 5000)": (Verdict.OUTPUT_LIMIT, "x" * 4096),
    "while True: print('x')": (Verdict.OUTPUT_LIMIT, "x\n" * 2048),
    "import sys\nsys.stdout.buffer.write(b'\\xff\\xc3\\xa9')": (Verdict.OK, "\ufffd\u00e9"),
    "print('\\ud800')": (Verdict.OK, "\\ud800\n"),
    "x = '\ud800'": (Verdict.ERROR, ""),  # a lone surrogate in the source itself
    "#" * 70000: (Verdict.REJECTED, ""),
}  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES, ids=["alone", "after a prefix"])
def test_each_ending_has_its_verdict(verifier, prefix):
    [outcomes] = verifier.run([Request(prefix=prefix, candidates=tuple(PROGRAMS))])
    got = {program: (outcome.verdict, outcome.output) for program, outcome in zip(PROGRAMS, outcomes, strict=True)}
    assert got == PROGRAMS


def test_errors_are_told_as_type_and_message(verifier):
    programs = ("raise ValueError('no')", "assert 1 == 2, 'differs'", "assert 1 == 2", "raise ValueError('x' * 10**7)")
    [outcomes] = verifier.run([Request(prefix="", candidates=programs)])
    no, differs, bare, long = [outcome.error for outcome in outcomes]
    assert (no, differs, bare) == ("ValueError: no", "AssertionError: differs", "AssertionError")
    assert long.startswith("ValueError: xxx") and len(long) <= 512


@pytest.mark.parametrize("prefix", ["1 / 0", "while True: pass", "import os\nos._exit(0)", "import sys\nsys.exit()"])
def test_nothing_runs_after_a_prefix_that_fails(verifier, prefix):
    [outcomes] = verifier.run([Request(prefix=prefix, candidates=("print(1)", "print(2)"))])
    assert [outcome.verdict for outcome in outcomes] == [Verdict.REJECTED] * 2
    assert all(outcome.error.startswith("prefix: ") for outcome in outcomes)


def test_markers_and_descriptors_forge_nothing(verifier):
    forge = "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'ok' * 16)\n    except OSError: pass\n"
    [outcomes] = verifier.run([Request(prefix="", candidates=(forge + "os._exit(0)", forge + "print(42)"))])
    assert [(outcome.verdict, outcome.output) for outcome in outcomes] == [
        (Verdict.EARLY_EXIT, ""),
        (Verdict.OK, "42\n"),
    ]


def test_cpu_seconds_are_those_of_the_candidate(verifier):
    # Few calls of the system, whose time counts too; clocks stand still in there.
    spin = "import resource\nwhile resource.getrusage(resource.RUSAGE_SELF).ru_utime < 0.2: sum(range(9999))"
    [[outcome]] = verifier.run([Request(prefix=spin, candidates=("pass",))])
    assert outcome.ok and outcome.cpu_seconds < 0.1
    [[outcome]] = verifier.run([Request(prefix="", candidates=(spin,))])
    assert outcome.ok and 0.15 < outcome.cpu_seconds < 0.5
