"""A candidate shares nothing with another one, with the host, or with anything outside."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from rstar_jax.verifier import Request, Verdict, Verifier
from rstar_jax.verifier.sandbox import syscalls
from tests.verifier.conftest import LIMITS

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


CHANCE = {
    "library": "import random\nprint(random.random(), hash('a'), {str(i) for i in range(20)})",
    "generators": "import random, secrets, uuid, os\nprint(random.Random().random(), secrets.token_hex())\n"
    "print(uuid.uuid4(), os.urandom(4).hex(), random.SystemRandom().random())",
    "clocks": "import time\nend = time.time() + 1\nrounds = 0\nwhile time.time() < end: rounds += 1\n"
    "print(rounds, time.time(), time.perf_counter_ns(), time.strftime('%Y', time.localtime(time.time())))",
    "processes": "import os\nprint(os.getpid(), os.getppid())",
    "numpy": "from numpy import random as r\nprint(r.default_rng().random(), r.rand(), r.RandomState().rand())",
    "sympy": "from sympy import randprime, randMatrix\nfrom sympy.core.random import random\n"
    "print(randprime(1, 10**9), randMatrix(2), random())",
}


@pytest.mark.parametrize("prefix", ["", "pass"], ids=["alone", "after a prefix"])
@pytest.mark.parametrize("name", CHANCE)
def test_equal_programs_give_equal_bytes(verifier, name, prefix):
    """In any cell, whatever ran there before."""
    requests = [Request(prefix=prefix, candidates=(f"{CHANCE[name]}  # run {i}",)) for i in range(8)]
    outcomes = [outcome for [outcome] in verifier.run(requests)]
    with Verifier(LIMITS, workers=1) as other:
        outcomes += [outcome for [outcome] in other.run(requests[:2])]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK}, outcomes[0]
    assert len({outcome.output for outcome in outcomes}) == 1


LEFT = {
    "a note in the page": (
        "import sys, mmap\nf = sys._getframe()\nwhile f:\n    for v in list(f.f_locals.values()):\n"
        "        if isinstance(v, mmap.mmap): v[3000:3005] = b'hello'\n    f = f.f_back"
    ),
    "an error": "raise ValueError('hello')",
    "flags": "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)",
    "locks": "import fcntl, struct\nfcntl.fcntl(1, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 9, 0))",
    "a place": "import os\nos.lseek(1, 1000, 0)",
}
LOOK = """
import fcntl, gc, mmap, os, struct, sys
f, pages, seen = sys._getframe(), [], []
while f:
    for name, value in list(f.f_locals.items()):
        if isinstance(value, mmap.mmap) and not value.closed: pages.append(b"hello" in value[16:])
        if name in ("source", "f", "value"): continue
        if "eno rehto eht"[::-1] in repr(value): seen.append(name)
    f = f.f_back
held = [thing for thing in gc.get_objects() if type(thing) in (list, tuple)]
seen += [1 for thing in held if any(x == MARK for x in thing if type(x) is str)]
lock = struct.unpack("hhqqi4x", fcntl.fcntl(1, 36, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 9, 0)))
print(pages, seen, fcntl.fcntl(1, fcntl.F_GETFL), fcntl.fcntl(1, fcntl.F_GETOWN), lock[0], os.lseek(1, 0, 1))
"""


@pytest.mark.parametrize("prefix", ["", "pass"], ids=["alone", "after a prefix"])
def test_nothing_is_left_for_the_next_program(prefix):
    """Neither in the same request nor in the next one; and no program finds the source of another."""
    sibling = "print('the other one')"
    look = LOOK.replace("MARK", repr(sibling[::-1]) + "[::-1]")
    with Verifier(LIMITS, workers=1) as one:
        [[clean]] = one.run([Request(prefix=prefix, candidates=(look,))])
        assert clean.output.startswith("[False") and "[] " in clean.output, clean
        for name, program in LEFT.items():
            candidates = (program, f"{look}# after {name}", sibling)
            [outcomes] = one.run([Request(prefix=prefix, candidates=candidates)])
            [[later]] = one.run([Request(prefix=prefix, candidates=(f"{look}# later than {name}",))])
            assert (outcomes[1].output, later.output) == (clean.output, clean.output), name


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
    assert {outcome.error.split(":")[0] for outcome in outcomes} <= {"PermissionError", "FileNotFoundError"}
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ERROR}
    assert secret.read_text() == "42"


def test_the_library_can_be_imported(verifier):
    programs = (
        "import numpy\nprint(numpy.linalg.inv(numpy.eye(1)))",
        "import math, statistics\nprint(statistics.mean([1, 3]))",
        "import csv, email, json\nprint(1)",
    )
    [outcomes] = verifier.run([Request(prefix="", candidates=programs)])
    assert [outcome.output for outcome in outcomes] == ["[[1.]]\n", "2\n", "1\n"]


@pytest.mark.parametrize("claim", ["bystander", 0, 1, 2**32 - 1, "itself"])
def test_a_prefix_that_names_a_process_of_others_as_its_candidate_harms_nobody(verifier, claim):
    """It speaks the cell's own language: that it is up, then a process id that it never forked."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pid = {"bystander": str(bystander.pid), "itself": "int(ctypes.CDLL(None).getpid())"}.get(claim, str(claim))
    lie = (
        "import ctypes, os\nos.write(21, b'done')\nos.read(20, 20)\n"
        f"os.write(21, ({pid}).to_bytes(4, 'big'))\nos._exit(0)"
    )
    [[outcome]] = verifier.run([Request(prefix=lie, candidates=("print(1)",))])
    assert (outcome.verdict, outcome.error) == (Verdict.EARLY_EXIT, "never started")
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    assert verifier.run([Request(prefix="x = 2", candidates=("print(x)  # after a lie",))])[0][0].output == "2\n"


def test_what_a_lying_prefix_has_forked_is_killed_before_its_candidates(verifier):
    if "seccomp" not in verifier.layers or syscalls.forks.MACHINE != "x86_64":
        pytest.skip("the number of the call is that of x86_64")
    lie = (
        "import ctypes, os\ncall = ctypes.PyDLL(None, use_errno=True).syscall\nfor _ in range(100):\n"
        "    if call(56, 0x808011, 0, 0, 0, 0) == 0:\n        while True: os.pwrite(22, b'forged by a stray', 0)"
    )
    [outcomes] = verifier.run(
        [Request(prefix=lie, candidates=("import time\ntime.sleep(0.2)\nprint('mine')", "print(2)"))]
    )
    assert [outcome.output for outcome in outcomes] == ["mine\n", "2\n"]


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
