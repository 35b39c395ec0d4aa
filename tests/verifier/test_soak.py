"""Twenty thousand programs of all kinds while processes are killed: every one is answered, and nothing grows."""

import os
import pathlib
import random
import threading

import pytest

from rstar_jax.verifier import Grader, Request, Verdict, Verifier
from tests.verifier.test_verifier import descendants, kill

PROGRAMS = (  # prefix, candidate, verdict, output
    ("", "print({0})", Verdict.OK, "{0}\n"),
    ("x = {0}", "print(x + 1 - 1)", Verdict.OK, "{0}\n"),
    ("", "1 / ({0} * 0)", Verdict.ERROR, ""),
    ("import sympy", "print(sympy.Integer({0}))", Verdict.OK, "{0}\n"),
    ("", "print('x' * (5000 + {0}))", Verdict.OUTPUT_LIMIT, None),
    ("", "print({0}, flush=True)\nimport os\nos._exit({0} % 7)", Verdict.EARLY_EXIT, "{0}\n"),
    ("", "import os\nos.fork({0})", Verdict.ERROR, ""),
    ("y = {0}\n1 / 0", "print(y)", Verdict.REJECTED, ""),
)
COUNT, BATCH, SECONDS_BETWEEN_KILLS = 20_000, 500, 2.0
_MEMORY_BYTES = 16 << 20


def resources():
    """Bytes resident, open files, zombies, processes: of this process and what it started."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    states = []
    for pid in descendants():
        try:
            states.append(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
        except FileNotFoundError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), states.count("Z"), len(states)


@pytest.mark.slow
def test_twenty_thousand_programs_and_a_kill_every_two_seconds():
    rng, over, kills = random.Random(0), threading.Event(), 0

    def kill_now_and_then():
        nonlocal kills
        while not over.wait(SECONDS_BETWEEN_KILLS):
            if alive := descendants():
                kill(rng.choice(alive))
                kills += 1

    killer = threading.Thread(target=kill_now_and_then)
    seen, wrong, undecided = [], [], 0
    with Verifier(workers=2, cache_size=BATCH) as verifier, Grader() as grader:
        killer.start()
        try:
            for start in range(0, COUNT, BATCH):
                rows = [(i, *PROGRAMS[i % len(PROGRAMS)]) for i in range(start, start + BATCH)]
                requests = [Request(prefix=p.format(i), candidates=(program.format(i),)) for i, p, program, *_ in rows]
                for (i, *_, verdict, output), [outcome] in zip(rows, verifier.run(requests), strict=True):
                    right = output is None or outcome.output == output.format(i)
                    if outcome.verdict is not verdict or not right:
                        wrong.append((i, verdict, outcome))
                grades = grader.grade([(f"x + {start + i}", f"{start + i} + x") for i in range(10)])
                undecided += grades.count(None)
                assert False not in grades
                seen.append(resources())
        finally:
            over.set()
            killer.join()
        cells = 2 * verifier.workers  # a light and a heavy one each, of two processes at most; and the grader's two
    assert {outcome.verdict for *_, outcome in wrong} <= {Verdict.UNVERIFIED} and len(wrong) <= kills / 4, wrong[:5]
    assert kills >= 10 and undecided <= kills
    early, late = seen[: len(seen) // 4], seen[-len(seen) // 4 :]
    memory, files, zombies, processes = (max(column) for column in zip(*late, strict=True))
    assert memory <= max(row[0] for row in early) + _MEMORY_BYTES
    assert files <= max(row[1] for row in early) + cells + 1
    assert zombies <= cells + 1 and processes <= 2 * cells + 2
    assert descendants() == []
