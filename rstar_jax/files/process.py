"""Processes by name: which machine this is, and whether a process of it still runs."""

import contextlib
import functools
import hashlib
import os
import pathlib
import socket


@functools.cache
def machine() -> str:
    """What the numbers of processes belong to, as 8 hexadecimal digits: a host, its boot and a namespace of numbers.

    Containers may share the name of their host and still each have a process 1.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # elsewhere than on Linux the host's name is enough
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def born(pid: int) -> str | None:
    """When a process of this machine began, "" if the system does not say; None if it runs no more.

    Numbers are given again: only number and birth together are one process.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # another user's
    try:
        state, *fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if state == "Z" else fields[18]
