"""A candidate shares nothing with another one, with the host, or with anything outside."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from rstar_jax.verifier import Request, Verdict
from rstar_jax.verifier.sandbox import syscalls

CANARY = "import math, random, sys\nprint(len([1, 2]), math.gcd(4, 6), random.random(), dir(), sorted({'a', 'b', 'c'}))"
VANDALS = (
    "import builtins\nbuiltins.len = lambda x: 42\nbuiltins.print = None\nbuiltins.compile = builtins.exec = None",
    "import os\nos.write = os._exit = os.fork = lambda *a: 0\n1 / 0",
    "import sys\nsys.modules.clear()\nsys.path[:] = []\nsys.stdout = None",
    "import math, random\nmath.gcd = None\nrandom.random = None\nleaked = 1",
    "import os\nos.closerange(0, 1000)",
    "import sys\nf = sys._getframe()\nwhile f:\n    f.f_globals.clear()\n    f = f.f_back",
    "import gc, signal\ngc.disable()\nfor s in range(1, 16):\n    if s != 9: signal.signal(s, signal.SIG_IGN)",
)


@pytest.mark.parametrize("prefix", ["", "pass"], ids=["alone", "after a prefix"])
def test_no_candidate_sees_what_another_did(verifier, prefix):
    candidates = tuple(x for i, vandal in enumerate(VANDALS) for x in (vandal, f"{CANARY}  # {prefix}{i}"))
    [outcomes] = verifier.run([Request(prefix=prefix, candidates=candidates)])
    canaries = outcomes[1::2]
    assert {outcome.verdict for outcome in canaries} == {Verdict.OK}
    assert len({outcome.output for outcome in canaries}) == 1
    assert "leaked" not in canaries[0].output


def test_no_request_sees_what_another_did(verifier):
    outputs = set()
    for i, vandal in enumerate(VANDALS):
        verifier.run([Request(prefix=vandal, candidates=("pass",)), Request(prefix="", candidates=(vandal + "\n",))])
        [[canary]] = verifier.run([Request(prefix="", candidates=(f"{CANARY}  # request {i}",))])
        outputs.add((canary.verdict, canary.output))
    assert len(outputs) == 1 and outputs.pop()[0] is Verdict.OK


def test_candidates_see_their_prefix_but_not_its_output(verifier):
    prefix = "import random\nx = [1]\nprint('prefix')\nrandom.seed(7)\ny = random.random()"
    candidates = ("x.append(2)\nprint(x)", "print(x)", "print(random.random())", "print(random.random() )")
    [[appended, other, drawn, again]] = verifier.run([Request(prefix=prefix, candidates=candidates)])
    assert (appended.output, other.output) == ("[1, 2]\n", "[1]\n")
    [[replayed]] = verifier.run([Request(prefix="", candidates=(f"{prefix}\nprint(random.random())",))])
    assert drawn.output == again.output == replayed.output.removeprefix("prefix\n")


def test_equal_programs_give_equal_bytes(verifier):
    program = "import random\nprint(random.random(), hash('a'), {str(i) for i in range(20)})  # run %d"
    outcomes = verifier.run([Request(prefix="", candidates=(program % i,)) for i in range(20)])
    assert len({outcome.output for [outcome] in outcomes}) == 1


def test_the_environment_is_empty(verifier):
    program = "import os, sys\nprint(dict(os.environ), globals().keys() - {'os', 'sys', '__builtins__'}, sys.argv)"
    [[outcome]] = verifier.run([Request(prefix="", candidates=(program,))])
    assert outcome.output == "{} {'__name__'} ['']\n"


ESCAPES = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "daemon": "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(100,)).start()",
    "shell": "import subprocess\nsubprocess.check_output('id', shell=True)",
    "exec": "import os\nos.execv('/bin/sh', ['sh'])",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
    "kill the cell": "import os\nos.kill(os.getppid(), 9)",
    "kill everything": "import os\nos.kill(-1, 9)",
    "raise a limit": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "memory files": "import os\nwhile True: os.write(os.memfd_create('x'), b'a' * 4096)",
}


@pytest.mark.parametrize("prefix", ["", "pass"], ids=["alone", "after a prefix"])
@pytest.mark.parametrize("name", ESCAPES)
def test_no_way_out_of_the_process(verifier, name, prefix):
    if "seccomp" not in verifier.layers:
        pytest.skip("this host has no seccomp")
    [[outcome]] = verifier.run([Request(prefix=prefix, candidates=(ESCAPES[name],))])
    assert outcome.verdict is Verdict.ERROR, outcome


def test_a_prefix_gets_no_further_out(verifier):
    if "seccomp" not in verifier.layers:
        pytest.skip("this host has no seccomp")
    outcomes = verifier.run([Request(prefix=program, candidates=("print(1)",)) for program in ESCAPES.values()])
    assert {outcome.verdict for [outcome] in outcomes} == {Verdict.REJECTED}


def test_no_file_outside_the_libraries(verifier, tmp_path):
    if "landlock" not in verifier.layers:
        pytest.skip("this host has no landlock")
    secret = tmp_path / "secret"
    secret.write_text("42")
    programs = (
        f"print(open({str(secret)!r}).read())",
        f"open({str(secret)!r}, 'w')",
        f"import os\nos.unlink({str(secret)!r})",
        f"import os\nprint(os.listdir({str(tmp_path)!r}))",
        f"import os\nos.chmod({str(secret)!r}, 0)",
        f"open({os.path.abspath(__file__)!r})",
        "print(open('/proc/1/environ').read())",
    )
    [outcomes] = verifier.run([Request(prefix="", candidates=programs)])
    assert [outcome.error.split(":")[0] for outcome in outcomes] == ["PermissionError"] * len(programs)
    assert secret.read_text() == "42"


def test_the_library_can_be_imported(verifier):
    programs = (
        "import numpy\nprint(numpy.linalg.inv(numpy.eye(1)))",
        "import math, statistics\nprint(statistics.mean([1, 3]))",
        "import csv, email, json\nprint(1)",
    )
    [outcomes] = verifier.run([Request(prefix="", candidates=programs)])
    assert [outcome.output for outcome in outcomes] == ["[[1.]]\n", "2\n", "1\n"]


def test_a_prefix_that_names_a_process_of_others_as_its_candidate_harms_nobody(verifier):
    """It speaks the cell's own language: that it is up, then a process id that it never forked."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    for pid in (bystander.pid, 1):
        lie = (
            f"import os\nos.write(21, b'done')\nos.read(20, 20)\nos.write(21, ({pid}).to_bytes(4, 'big'))\nos._exit(0)"
        )
        [[outcome]] = verifier.run([Request(prefix=lie, candidates=("print(1)",))])
        assert (outcome.verdict, outcome.error) == (Verdict.EARLY_EXIT, "never started")
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    assert verifier.run([Request(prefix="x = 2", candidates=("print(x)  # after a lie",))])[0][0].output == "2\n"


@pytest.mark.parametrize(
    "header, column", [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)], ids=["x86_64", "aarch64"]
)
def test_numbers_of_system_calls_are_those_of_the_kernels_headers(header, column):
    path = pathlib.Path("/usr/include") / header
    if not path.exists():
        pytest.skip("no kernel headers here")
    there = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())}
    table = syscalls._ALLOWED | syscalls._ALLOWED_TO_FORKING | {"prlimit64": syscalls._PRLIMIT64}
    table |= {name: numbers for name, (numbers, _, _) in syscalls._ALLOWED_WITH.items()}
    there.setdefault("newfstatat", there.get("fstatat"))  # the generic table has it under this name
    known = {name: numbers[column] for name, numbers in table.items() if numbers[column] is not None}
    assert {name: there[name] for name in known} == known
    assert not [name for name, numbers in table.items() if numbers[column] is None and name in there]
