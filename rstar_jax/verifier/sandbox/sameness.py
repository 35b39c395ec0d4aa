"""Makes equal programs see equal chance, time and process ids, so that they give equal bytes.

What is replaced here is replaced for programs only: a cell takes its own clock and chance before.

Time stands still but for being looked at: every look moves it on by a fixed step, and sleeping by what was slept. So a
loop that waits for a deadline comes to its end, and always after the same number of rounds.
"""

import os
import random
import sys
import time

_TICK_NANOSECONDS = 1_000_000
_START_NANOSECONDS = 1_700_000_000 * 10**9
_PROCESS, _PARENT = 2, 1
_CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")


def fix(seed: int) -> None:
    """Seeds what can be seeded and stops what can be stopped, in this process and all that it forks from now on."""
    chance = random.Random(seed)
    os.urandom = random._urandom = chance.randbytes
    random.Random.seed = _seeding(random.Random.seed, chance)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "sympy" in sys.modules:
        sys.modules["sympy.core.random"].seed(seed)
    os.getpid, os.getppid = (lambda: _PROCESS), (lambda: _PARENT)
    _stop_the_clocks()


def _seeding(seed, chance: random.Random):
    """`random.Random.seed` that draws from `chance` where the system would be asked."""

    def seeded(self, a=None, version=2):
        seed(self, chance.getrandbits(256) if a is None else a, version)

    return seeded


def _stop_the_clocks() -> None:
    now = 0
    sleep = time.sleep

    def look() -> int:
        nonlocal now
        now += _TICK_NANOSECONDS
        return now

    def slept(seconds, /):
        nonlocal now
        sleep(seconds)
        now += int(seconds * 10**9)

    for name in _CLOCKS:
        origin = _START_NANOSECONDS if name == "time" else 0
        setattr(time, name, lambda origin=origin: (origin + look()) / 10**9)
        setattr(time, f"{name}_ns", lambda origin=origin: origin + look())
    time.sleep = slept
