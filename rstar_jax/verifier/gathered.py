"""One future for the results of several, on which others may wait as well."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

Part = TypeVar("Part")
Whole = TypeVar("Whole")


def gather(futures: "Sequence[Future[Part]]", whole: "Callable[[list[Part]], Whole]" = list) -> "Future[Whole]":
    """The future of `whole(results)`, done as soon as all `futures` are; it fails as the first of them that failed.

    It cannot be cancelled, because others may wait for the same work.
    """
    gathered: Future[Whole] = Future()
    gathered.set_running_or_notify_cancel()
    left = len(futures)
    lock = threading.Lock()

    def count(_: Future) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left > 0:
                return
        failure = next((error for future in futures if (error := future.exception())), None)
        if failure is not None:
            gathered.set_exception(failure)
        else:
            gathered.set_result(whole([future.result() for future in futures]))

    if not futures:
        gathered.set_result(whole([]))
    for future in futures:
        future.add_done_callback(count)
    return gathered
