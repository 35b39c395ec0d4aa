"""Reads how much CPU time another process has used: what decides deadlines, on busy hosts and idle ones alike."""

import time

_PROCESS_CLOCK = 2


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process `pid`, all its threads together; 0 if it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return 0.0
