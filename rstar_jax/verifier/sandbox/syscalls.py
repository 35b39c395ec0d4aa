"""The system call filters (seccomp BPF): what Python, numpy, sympy and scipy use, and nothing else.

Two filters. The process that forks carries the large one, built once and inherited by everything it forks: a list of
what is allowed, some of it with certain arguments only. Each fork adds a small one, which takes away what the forking
process itself still needed: to fork, to kill, to set limits. The kernel remembers which calls are allowed whatever
their arguments, so the length of the list costs nothing.
"""

import ctypes
import os
import struct

from . import forks

# name: (x86_64, aarch64); None where the architecture has no such call.
_ALLOWED = {
    # Files that are open, and files of the libraries, over which landlock watches.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287),
    "lseek": (8, 62), "open": (2, None), "openat": (257, 56), "close": (3, 57), "close_range": (436, 436),
    "fstat": (5, 80), "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "getdents": (78, None),
    "getdents64": (217, 61), "getcwd": (79, 17), "readlink": (89, None), "readlinkat": (267, 78), "dup": (32, 23),
    "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "ftruncate": (77, 46),
    "fallocate": (285, 47), "fadvise64": (221, 223), "statfs": (137, 43), "fstatfs": (138, 44), "umask": (95, 166),
    # Memory.
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "msync": (26, 227), "mincore": (27, 232), "membarrier": (324, 283),
    # Signals and timers that reach nobody but the process itself.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "pause": (34, None), "alarm": (37, None), "setitimer": (38, 103),
    "getitimer": (36, 102),
    # Clocks, and what a process may know of itself and the machine.
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "sysinfo": (99, 179),
    "uname": (63, 160), "getrandom": (318, 278), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121), "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126), "getcpu": (309, 168), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150), "getpgrp": (111, None),
    "getpgid": (121, 155), "getsid": (124, 156), "capget": (125, 90), "getpriority": (140, 141), "getrlimit": (97, 163),
    # The life of a process.
    "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95), "set_tid_address": (218, 96),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "futex": (202, 98), "rseq": (334, 293),
    "arch_prctl": (158, None),
    # Waiting for what is open.
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "eventfd": (284, None), "eventfd2": (290, 19),
}  # fmt: skip
# What the forking process needs and nothing that it forks does.
_ALLOWED_TO_FORKING = {
    "kill": (62, 129), "pidfd_open": (434, 434), "setrlimit": (160, 164), "sendto": (44, 206), "recvfrom": (45, 207),
}  # fmt: skip
# Calls whose arguments decide. name: (x86_64, aarch64), the argument, its values. Not among them: owners of a
# descriptor and the signals that it sends, leases, seals, the size of a pipe.
_ALLOWED_WITH = {
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 16, 36, 37, 38, 1030, 1032, 1034)),
    "ioctl": ((16, 29), 1, (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)),  # a terminal? close on exec, how much is there
    "prctl": ((157, 167), 0, (1, 22)),  # PR_SET_PDEATHSIG, PR_SET_SECCOMP
    "seccomp": ((317, 277), 1, (0,)),  # one more filter for oneself, without flags
}  # fmt: skip
_PRLIMIT64 = (302, 261)
_CLONE3 = 435
_FIRST_UNKNOWN = 452  # system calls newer than this table answer ENOSYS, and libraries fall back

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ALLOW, _EPERM, _ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
_NR, _ARCH, _ARGUMENTS = 0, 4, 16


def supported() -> bool:
    """Whether this architecture has a table."""
    return forks.MACHINE in _ARCHITECTURES


def _op(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, k)


def _number(numbers: tuple[int, int | None]) -> int | None:
    return numbers[_ARCHITECTURES[forks.MACHINE][0]]


def _each(table: dict, verdict: int) -> list[bytes]:
    """`verdict` for every call of `table`; the others go on. One jump a call: no offset grows with the table."""
    numbers = [_number(numbers) for numbers in table.values() if _number(numbers) is not None]
    return [operation for number in numbers for operation in (_op(_EQUAL, number, 0, 1), _op(_RETURN, verdict))]


def _with_argument(number: int, argument: int, values: tuple[int, ...]) -> list[bytes]:
    """The call `number` only with one of `values` (32 bits) as its argument."""
    tests = [operation for value in values for operation in (_op(_EQUAL, value, 0, 1), _op(_RETURN, _ALLOW))]
    body = [_op(_LOAD, _ARGUMENTS + 8 * argument), *tests, _op(_RETURN, _EPERM)]
    return [_op(_EQUAL, number, 0, len(body)), *body]


def _limits_only_read() -> list[bytes]:
    """prlimit64 of oneself without new limits: its first and third argument are 0."""
    words = [_ARGUMENTS, _ARGUMENTS + 16, _ARGUMENTS + 20]
    body = [operation for word in words for operation in (_op(_LOAD, word), _op(_EQUAL, 0, 1), _op(_RETURN, _EPERM))]
    return [_op(_EQUAL, _number(_PRLIMIT64), 0, len(body) + 1), *body, _op(_RETURN, _ALLOW)]


def forking_filter() -> bytes:
    """The filter of the process that forks: what is not in the tables is refused for good, to all that it forks too."""
    _, architecture = _ARCHITECTURES[forks.MACHINE]
    operations = [
        _op(_LOAD, _ARCH), _op(_EQUAL, architecture, 1), _op(_RETURN, _KILL),
        _op(_LOAD, _NR),
        _op(_EQUAL, _CLONE3, 0, 1), _op(_RETURN, _ENOSYS),
        # Also catches the x32 calls of x86_64, which have bit 30 set.
        _op(_GREATER_EQUAL, _FIRST_UNKNOWN, 0, 1), _op(_RETURN, _ENOSYS),
        *_each(_ALLOWED | _ALLOWED_TO_FORKING | {"prlimit64": _PRLIMIT64}, _ALLOW),
        *_with_argument(forks.CLONE, 0, (forks.CHILD_FLAGS, forks.SIBLING_FLAGS)),
    ]  # fmt: skip
    for numbers, argument, values in _ALLOWED_WITH.values():
        operations += _with_argument(_number(numbers), argument, values)
    return b"".join([*operations, _op(_RETURN, _EPERM)])


def program_filter(*, may_fork_siblings: bool = False, answers: bool = False) -> bytes:
    """The filter that each fork adds to itself before it runs untrusted code: it takes away what forking needed.

    may_fork_siblings: for the process that ran a prefix and must still fork its candidates. answers: for one that talks
    to the host itself.
    """
    spoken = ("sendto", "recvfrom") if answers else ()
    taken = {name: numbers for name, numbers in _ALLOWED_TO_FORKING.items() if name not in spoken}
    prctl = {} if may_fork_siblings else {"prctl": _ALLOWED_WITH["prctl"][0]}
    clone = _with_argument(forks.CLONE, 0, (forks.SIBLING_FLAGS,) if may_fork_siblings else ())
    operations = [_op(_LOAD, _NR), *_each(taken | prctl, _EPERM), *clone, *_limits_only_read()]
    return b"".join([*operations, _op(_RETURN, _ALLOW)])


def refusing(table: dict) -> bytes:
    """A filter that refuses the calls of `table` and allows all others. name: (x86_64, aarch64)."""
    return b"".join([_op(_LOAD, _NR), *_each(table, _EPERM), _op(_RETURN, _ALLOW)])


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class Filter:
    """A filter laid out once in memory, so that installing it after a fork is one system call."""

    def __init__(self, operations: bytes):
        self._buffer = ctypes.create_string_buffer(operations, len(operations))
        self._program = _Program(len(operations) // 8, ctypes.addressof(self._buffer))
        self._reference = ctypes.byref(self._program)
        self._prctl = ctypes.PyDLL(None, use_errno=True).prctl

    def install(self) -> None:
        """Puts the filter on this process for good. Raises OSError where the kernel refuses."""
        if self._prctl(22, 2, self._reference, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
