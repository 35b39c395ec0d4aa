"""Forks with flags of our own, which the system call filter knows from the forks of untrusted code.

`os.fork` runs Python's fork hooks (0.5 ms; one of them reseeds `random`) and glibc's. A sandboxed process has one
thread, so neither is needed: the bare system call is. `CLONE_UNTRACED` means nothing to a process that nobody traces;
here it is the mark by which the filter tells our forks (allowed) from `fork()` in a program (not allowed).

Where Linux or the number of the call is missing, `os.fork` has to do, and there are no siblings.
"""

import ctypes
import os
import signal
import sys

LINUX = sys.platform == "linux"
MACHINE = os.uname().machine if LINUX else ""
CLONE = {"x86_64": 56, "aarch64": 220}.get(MACHINE, 0)
CHILD_FLAGS = 0x00800000 | signal.SIGCHLD  # CLONE_UNTRACED
SIBLING_FLAGS = CHILD_FLAGS | 0x00008000  # CLONE_PARENT

# PyDLL keeps hold of the GIL over the call, so the child comes out holding it too.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes = [ctypes.c_long] * 6
_syscall.restype = ctypes.c_long
_get_errno, _strerror = ctypes.get_errno, os.strerror


def fork() -> int:
    """Forks a child of this process. Returns its process id, and 0 in the child."""
    return _clone(CHILD_FLAGS) if CLONE else os.fork()


def fork_sibling() -> int:
    """Forks a child of this process' parent, so that the parent itself can wait for it, time it and kill it."""
    return _clone(SIBLING_FLAGS)


def _clone(flags: int) -> int:
    pid = _syscall(CLONE, flags, 0, 0, 0, 0)
    if pid < 0:
        raise OSError(_get_errno(), _strerror(_get_errno()))
    return pid
