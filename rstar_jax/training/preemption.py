"""A machine that is taken away says so before: a training ends at a step with its checkpoint, and can go on from it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 42  # by which a launcher knows that the same command goes on


class Preempted(SystemExit):
    """Ends the process with `EXIT_STATUS`; the checkpoint of the last step is written."""

    def __init__(self, message: str):
        super().__init__(EXIT_STATUS)
        self.message = message


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Gives `asked(step)`: whether SIGTERM has come to any process; all of them hear of it at the same step."""
    if jax.process_count() > 1:  # there jax.distributed catches the signal, and tells the others
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield lambda step: False
        return
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.set())
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
