"""The host's side: order, cache, lost cells, closing; and that the process which holds JAX never forks."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from rstar_jax.verifier import Limits, Request, Verdict, Verifier
from rstar_jax.verifier.process import SandboxProcess


def descendants(pid=None):
    """Process ids of everything that this process started and that still runs."""
    found = []
    for task in pathlib.Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_outcomes_come_in_the_order_of_requests_and_candidates(verifier):
    requests = [Request(prefix=f"x = {i}" * (i % 2), candidates=tuple(f"print({i}, {j})" for j in range(9)))
                for i in range(20)]  # fmt: skip
    outcomes = verifier.run(requests)
    assert [[o.output for o in row] for row in outcomes] == [[f"{i} {j}\n" for j in range(9)] for i in range(20)]
    assert verifier.run([Request(prefix="", candidates=())]) == [[]]


def test_the_host_never_forks(monkeypatch):
    def refuse(*_):
        raise AssertionError("os.fork in the host")

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(subprocess, "_fork_exec", _without_preexec(subprocess._fork_exec))
    with Verifier(workers=2) as verifier:
        requests = [Request(prefix=prefix, candidates=("print(1)",)) for prefix in ("", "pass")]
        assert [row[0].output for row in verifier.run(requests)] == ["1\n", "1\n"]


def _without_preexec(fork_exec):
    def checked(*arguments):
        assert not any(callable(argument) for argument in arguments), "preexec_fn runs Python between fork and exec"
        return fork_exec(*arguments)

    return checked


def test_a_duplicate_runs_once(verifier):
    program = "import time\ntime.sleep(0.3)\nprint('once')"
    start = time.monotonic()
    [row] = verifier.run([Request(prefix="", candidates=(program,) * 32)])
    again = verifier.submit(Request(prefix="", candidates=(program,))).result()
    assert {outcome.output for outcome in (*row, *again)} == {"once\n"}
    assert time.monotonic() - start < 3.0


def test_the_cache_knows_where_a_prefix_ends(verifier):
    rows = verifier.run([Request(prefix="x = 1", candidates=("\nprint(x)",)), Request(prefix="x = 1\n", candidates=(
        "print(x) ; x = 3",)), Request(prefix="", candidates=("x = 1\nprint(x + 1)",))])  # fmt: skip
    assert [outcome.output for [outcome] in rows] == ["1\n", "1\n", "2\n"]


def test_the_cache_forgets_the_oldest():
    with Verifier(workers=1, cache_size=2) as verifier:
        for i in range(5):
            verifier.run([Request(prefix="", candidates=(f"print({i})",))])
        assert len(verifier._cache) == 2


def test_a_lost_cell_is_replaced_and_its_request_runs_again():
    with Verifier(workers=1) as verifier:
        waiting = verifier.submit(Request(prefix="", candidates=("import time\ntime.sleep(1)\nprint('done')",)))
        time.sleep(0.3)
        for pid in descendants():
            kill(pid)
        assert [(outcome.verdict, outcome.output) for outcome in waiting.result()] == [(Verdict.OK, "done\n")]


def test_a_request_whose_cells_are_lost_again_and_again_is_unverified():
    with Verifier(workers=1) as verifier:
        waiting = verifier.submit(Request(prefix="", candidates=("import time\ntime.sleep(5)",)))
        while not waiting.done():
            for pid in descendants():
                kill(pid)
            time.sleep(0.3)
        assert [outcome.verdict for outcome in waiting.result()] == [Verdict.UNVERIFIED]
        [[after]] = verifier.run([Request(prefix="", candidates=("print(1)",))])
        assert after.ok


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_closing_leaves_no_process_and_no_waiter():
    before = set(descendants())
    verifier = Verifier(Limits(cpu_seconds=60, wall_seconds=60), workers=2)
    futures = [
        verifier.submit(Request(prefix=prefix, candidates=(f"while True: pass  # {i}",)))
        for i, prefix in enumerate(["", "pass", "while True: pass", ""])
    ]
    deadline = time.monotonic() + 60
    while len(started := set(descendants()) - before) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(started) >= 4
    verifier.close()
    verifier.close()
    for future in futures:
        with pytest.raises(RuntimeError, match="closed"):
            future.result(timeout=10)
    with pytest.raises(RuntimeError, match="closed"):
        verifier.submit(Request(prefix="", candidates=("pass",)))
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in started))


def test_a_host_that_is_killed_leaves_no_process():
    program = (
        "from rstar_jax.verifier import *\n"
        "verifier = Verifier(Limits(cpu_seconds=60, wall_seconds=60), workers=1)\n"
        "verifier.submit(Request(prefix='pass', candidates=('while True: pass',)))\n"
        "print('ready', flush=True)\nimport time\ntime.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert host.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    started = descendants(host.pid)
    assert started
    host.kill()
    host.wait()
    host.stdout.close()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in started))


def test_a_host_where_nothing_can_run_says_so():
    with pytest.raises(ValueError, match="no_such_module is not installed"):
        Verifier(preload=[["no_such_module"]])
    with pytest.raises(ValueError, match="workers >= 1, got 0"):
        Verifier(workers=0)


def without(*layers):
    """A SandboxProcess that says it lacks some layers."""

    class Weaker(SandboxProcess):
        def begin(self, settings):
            super().begin(settings)
            self.hello["layers"] = [layer for layer in self.hello["layers"] if layer not in layers]

    return Weaker


@pytest.mark.parametrize("layer", ["seccomp", "landlock"])
def test_nothing_runs_without_a_wall_unless_that_is_asked_for(monkeypatch, layer):
    monkeypatch.setattr("rstar_jax.verifier.verifier.SandboxProcess", without(layer))
    before = set(descendants())
    with pytest.raises(ValueError, match=f"require_{layer}: this host has no {layer}"):
        Verifier(workers=1)
    wait_until(lambda: set(descendants()) == before)
    with Verifier(Limits(**{f"require_{layer}": False}), workers=1) as verifier:
        assert verifier.run([Request(prefix="", candidates=("print(1)",))])[0][0].ok


def test_root_that_would_stay_root_is_refused(monkeypatch):
    monkeypatch.setattr("rstar_jax.verifier.verifier.SandboxProcess", without("namespaces", "nobody"))
    monkeypatch.setattr("os.getuid", lambda: 0)
    with pytest.raises(ValueError, match="would run programs as root"):
        Verifier(workers=1)


def test_a_program_that_names_a_heavy_module_finds_it_loaded():
    with Verifier(workers=1) as verifier:
        rows = verifier.run(
            [
                Request(prefix="", candidates=("import sympy\nprint(sympy.factorint(12))", "print(1)")),
                Request(prefix="from sympy import *", candidates=("print(Rational(1, 2))", "print(2)")),
                Request(prefix="y = 3", candidates=("print(y)", "import numpy\nprint(numpy.arange(y))")),
            ]
        )
        outputs = [[outcome.output for outcome in row] for row in rows]
        assert outputs == [["{2: 2, 3: 1}\n", "1\n"], ["1/2\n", "2\n"], ["3\n", "[0 1 2]\n"]]
        assert max(outcome.cpu_seconds for row in rows for outcome in row) < 0.2  # an import of sympy takes longer


def test_a_cell_knows_nothing_of_jax(verifier):
    program = "import sys\nprint(sorted({'jax', 'rstar_jax', 'num' + 'py', 'sym' + 'py'} & set(sys.modules)))"
    outcomes = verifier.run([Request(prefix="", candidates=(program, f"{program}  # numpy"))])
    assert [outcome.output for outcome in outcomes[0]] == ["[]\n", "['numpy', 'sympy']\n"]


def test_nothing_piles_up():
    with Verifier(workers=1) as verifier:
        verifier.run([Request(prefix="", candidates=("print(-1)",))])
        files, processes = len(os.listdir("/proc/self/fd")), len(descendants())
        verifier.run([Request(prefix="pass" * (i % 2), candidates=(f"print({i})",)) for i in range(300)])
        assert (len(os.listdir("/proc/self/fd")), len(descendants())) == (files, processes)


def test_scipy_costs_a_program_nothing_and_slows_no_other(verifier):
    programs = (
        "from scipy.stats import norm\nprint(round(norm.cdf(1), 4))",
        "import scipy.optimize as o\nprint(round(o.brentq(lambda x: x * x - 2, 0, 2), 6))",
        "from scipy import integrate\nimport sympy\nprint(integrate.quad(lambda x: x, 0, 1)[0], sympy.Rational(1, 2))",
        "import sys, sympy\nprint('sci' + 'py' in sys.modules)",
    )
    [outcomes] = verifier.run([Request(prefix="", candidates=programs)])
    assert [outcome.output for outcome in outcomes] == ["0.8413\n", "1.414214\n", "0.5 1/2\n", "False\n"]
    assert max(outcome.cpu_seconds for outcome in outcomes) < 0.5


def test_what_a_prefix_asks_of_the_future_holds_for_what_follows(verifier):
    prefix = "from __future__ import annotations\nx = 1"
    candidates = ("def f(a: no_such_name): return a\nprint(f(x))", "x: 1 / 0 = 2\nprint(x)")
    [outcomes] = verifier.run([Request(prefix=prefix, candidates=candidates)])
    assert [outcome.output for outcome in outcomes] == ["1\n", "2\n"]
    [[alone]] = verifier.run([Request(prefix="", candidates=(candidates[0],))])
    assert alone.verdict is Verdict.ERROR
