"""Leases: a job is done by one process at a time, and by another if that one dies.

The holder writes its lease anew every few seconds. Who finds one watches it: as long as it changes, its holder lives;
if it stays the same for `seconds` of the watcher's own clock, another may take it. Clocks of hosts are never compared.

    JOB.lease      turn 0: made by `create`, so that one process gets it
    JOB.lease.1    turn 1: made by whoever takes over from turn 0, again only one; and so on. The last turn holds.

What is guaranteed, where `create` is exact (a local disk, gs, s3): of those who ask, one gets a turn; while the holder
can write its lease, nobody takes it. A holder that stood still for `seconds` (a stopped process, a store out of reach)
and wakes up works beside its successor until it next looks: it looks every quarter of `seconds`, and `check` looks at
once. So a job may be done twice, seldom, and must do no harm then: look for its done-marker after the lease is taken,
`check` before it is written, give the same bytes.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import socket
import threading
import time
from typing import Any

from etils import epath

from rstar_jax.files import objects, process


class Held(FileExistsError):
    """Another process holds the lease; the message says which."""


class Lost(RuntimeError):
    """Another process has taken the lease over; the message says which."""


@dataclasses.dataclass(frozen=True)
class _Holder:
    """Who holds a lease, as its file says."""

    host: str
    machine: str  # as process.machine
    pid: int
    born: str  # as process.born
    seconds: float  # without a change, after which the lease is anybody's
    taken: str  # when, by the holder's clock: for people
    word: str  # random: tells two holders apart that are one process

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.taken}"


class Lease:
    """The lease of one job, at a path of its own.

        with Lease(folder / "shard-00003.lease") as lease:  # raises Held
            ...
            lease.check()  # raises Lost

    seconds: how long it must stay unchanged before another process may take it. It is refreshed four times as often.
    wait: `with` waits until it is free, instead of raising Held.
    """

    def __init__(self, path: epath.PathLike, *, seconds: float = 60.0, wait: bool = False):
        self.path, self.seconds, self._wait = epath.Path(path), seconds, wait
        self.holder: str | None = None  # who held it when it was last asked for
        self.lost = False  # whether another process has taken it over
        self._mine: _Holder | None = None
        self._turn, self._beat = 0, 0
        self._seen: tuple[bytes, float] | None = None  # of another's: content, and since when
        self._is_alive = False  # the other one, as far as was seen
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._refresher: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        while not self.acquire():
            if self._is_alive and not self._wait:
                raise Held(f"{self.path}: held by {self.holder}")
            time.sleep(min(self.seconds / 20, 1.0))
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def acquire(self) -> bool:
        """Takes the lease if it may be had now, without waiting; whether it did.

        One that is not refreshed any more is had by asking again and again, of the same object, for `seconds`; one of a
        process of this machine that runs no more, at once.
        """
        turn, content = self._last()
        if content is not None and not self._is_over(content):
            return False
        pid = os.getpid()
        mine = _Holder(
            host=socket.gethostname(),
            machine=process.machine(),
            pid=pid,
            born=process.born(pid) or "",
            seconds=self.seconds,
            taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            word=secrets.token_hex(8),
        )
        if not objects.create(self._file(turn + 1), json.dumps(dataclasses.asdict(mine))):
            return False  # another was faster
        self._mine, self._turn, self.lost, self._seen = mine, turn + 1, False, None
        self._stop = threading.Event()
        self._refresher = threading.Thread(target=self._refresh_until, args=(self._stop,), name="lease", daemon=True)
        self._refresher.start()
        return True

    def check(self) -> None:
        """Looks whether the lease still holds, and refreshes it. Raises Lost, or RuntimeError if it was not taken."""
        if self._mine is None:
            raise RuntimeError(f"{self.path}: the lease was not taken")
        self._refresh()
        if self.lost:
            raise Lost(f"{self.path}: taken over by {self.holder}; this process stood still for {self.seconds:g} s")

    def release(self) -> None:
        """Gives the lease back, if it is held."""
        if self._mine is None:
            return
        self._stop.set()
        self._refresher.join()
        with contextlib.suppress(Exception):  # a store out of reach: it goes stale by itself
            if not self._is_taken():
                if self._turn:  # turns below it stand, so this one says that it is over
                    self._publish(released=True)
                else:
                    objects.remove(self.path)
        self._mine = None

    def _refresh_until(self, stop: threading.Event) -> None:
        while not self.lost and not stop.wait(self.seconds / 4):
            with contextlib.suppress(Exception):  # whatever ails the store, the next try may get through
                self._refresh()

    def _refresh(self) -> None:
        with self._lock:
            self.lost = self.lost or self._is_taken()
            if not self.lost:
                self._beat += 1
                self._publish(beat=self._beat)

    def _is_taken(self) -> bool:
        """Whether there is a later turn, or this one was removed, or written by two, which an inexact `create` lets."""
        turn, content = self._last(self._turn)
        holder = _parse(content)
        if turn == self._turn and holder is not None and holder.word == self._mine.word:
            return False
        self.holder = str(holder) if holder else "nobody: its file is gone"
        return True

    def _publish(self, **state: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        objects.publish(self._file(self._turn), json.dumps({**dataclasses.asdict(self._mine), "written": now, **state}))

    def _last(self, start: int = 0) -> tuple[int, bytes | None]:
        """The last turn from `start` on and what its file says; (start - 1, None) if there is none."""
        turn, content = start - 1, None
        with contextlib.suppress(FileNotFoundError):
            while True:
                content = objects.read(self._file(turn + 1))
                turn += 1
        return turn, content

    def _is_over(self, content: bytes) -> bool:
        """Whether what another one's file says lets this process take the next turn."""
        holder = _parse(content)
        self.holder = str(holder or "somebody")
        if holder and b'"released": true' in content:
            return True
        self._is_alive = False
        if holder and holder.machine == process.machine():
            born = process.born(holder.pid)
            if born is None or (born and holder.born and born != holder.born):
                return True
            self._is_alive = True
        now = time.monotonic()
        if self._seen is None or self._seen[0] != content:
            self._is_alive = self._is_alive or self._seen is not None
            self._seen = content, now
        return now - self._seen[1] >= (holder.seconds if holder else self.seconds)

    def _file(self, turn: int) -> epath.Path:
        return self.path.with_name(f"{self.path.name}.{turn}") if turn else self.path


def _parse(content: bytes | None) -> _Holder | None:
    try:
        fields = json.loads(content)
        return _Holder(**{field.name: fields[field.name] for field in dataclasses.fields(_Holder)})
    except (ValueError, TypeError, KeyError):
        return None
