"""The sandbox where nothing of Linux is there: as on macOS, with rlimits only, which it says."""

import pytest

from rstar_jax.verifier import Limits, Request, Verdict, Verifier, process

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=5.0, require_seccomp=False, require_landlock=False)
# Takes away what other systems lack before the sandbox looks for it.
_PRELUDE = (
    "import os, sys\n"
    "for name in ('memfd_create', 'pidfd_open', 'waitid', 'sched_getaffinity'): delattr(os, name)\n"
    "import resource; del resource.RLIMIT_MSGQUEUE\n"
    "import time; time.clock_gettime = lambda clock: (_ for _ in ()).throw(OSError())\n"
    "folder, module = sys.argv[1:3]; sys.path.insert(0, folder); sys.platform = 'darwin'\n"
    "import sandbox.forks; sys.platform = 'linux'; sys.path.remove(folder)\n"
)
TABLE = {
    "print(1)": (Verdict.OK, "1\n"),
    "print(2)\n1 / 0": (Verdict.ERROR, "2\n"),
    "raise SystemExit": (Verdict.EXIT, ""),
    "import os\nos._exit(0)": (Verdict.EARLY_EXIT, ""),
    "while True: pass": (Verdict.TIMEOUT_CPU, ""),
    "import time\ntime.sleep(60)": (Verdict.TIMEOUT_WALL, ""),
    "x = b'a' * (4 << 30)": (Verdict.MEMORY, ""),
    "import os\nos.abort()": (Verdict.CRASH, ""),
    "print('x' * 10_000)": (Verdict.OUTPUT_LIMIT, "x" * LIMITS.output_bytes),
    "import os, time\nif os.fork() == 0: time.sleep(60)\nprint('parent')": (Verdict.OK, "parent\n"),
}


@pytest.fixture(scope="module")
def elsewhere():
    patch = pytest.MonkeyPatch()
    patch.setattr(process, "_START", _PRELUDE + process._START)
    with Verifier(LIMITS, workers=2) as verifier:
        yield verifier
    patch.undo()


def test_it_says_what_is_missing(elsewhere):
    assert set(elsewhere.layers) <= {"limits", "nobody"}


def test_verdicts(elsewhere):
    [outcomes] = elsewhere.run([Request(prefix="", candidates=tuple(TABLE))])
    assert {program: (o.verdict, o.output) for program, o in zip(TABLE, outcomes, strict=True)} == TABLE


def test_candidates_follow_their_prefix(elsewhere):
    prefix = "import random\nprint('unseen')\nx = [1]\nrandom.seed(1)"
    candidates = ("x.append(2)\nprint(x)", "print(x)", "print(random.random())", "print(random.random()) ")
    [rows] = elsewhere.run([Request(prefix=prefix, candidates=candidates)])
    outputs = [outcome.output for outcome in rows]
    assert outputs[:2] == ["[1, 2]\n", "[1]\n"] and outputs[2] == outputs[3]
    [[failed]] = elsewhere.run([Request(prefix="print(1)\n1 / 0", candidates=("print(2)",))])
    assert (failed.verdict, failed.output) == (Verdict.REJECTED, "")
    assert failed.error == "prefix: ZeroDivisionError: division by zero"
