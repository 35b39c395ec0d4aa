"""The system call filters (seccomp BPF), as a table of what no program that does mathematics needs.

Two filters. The process that forks carries the large one, built once and inherited by everything it forks. Each fork
adds a small one, which takes away what the forking process itself still needed: to fork, to kill, to set limits.
"""

import ctypes
import os
import struct

from . import forks

# name: (x86_64, aarch64); None where the architecture has no such call.
_DENIED = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201), "socketpair": (53, 199), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "userfaultfd": (323, 282), "shmget": (29, 194),
    "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "setuid": (105, 146), "setgid": (106, 144),
    "setreuid": (113, 145), "setregid": (114, 143), "setgroups": (116, 159), "setresuid": (117, 147),
    "setresgid": (119, 149), "setfsuid": (122, 151), "setfsgid": (123, 152), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "setpriority": (141, 140), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "ioprio_set": (251, 30), "memfd_create": (319, 279), "personality": (135, 92), "acct": (163, 89),
    "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "syslog": (103, 116),
    "quotactl": (179, 60), "fanotify_init": (300, 262), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "vfork": (58, None), "fork": (57, None),
    # Landlock does not watch these.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
# What the forking process needs and nothing that it forks does.
_DENIED_LATER = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "prlimit64": (302, 261),
    "setrlimit": (160, 164),
}  # fmt: skip
_PRCTL = (157, 167)
_CLONE3 = 435
_FIRST_UNKNOWN = 452  # system calls newer than this table answer ENOSYS, and libraries fall back

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_KILL, _ALLOW, _EPERM, _ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
_NR, _ARCH, _ARGUMENT_0 = 0, 4, 16


def supported() -> bool:
    """Whether this architecture has a table."""
    return forks.MACHINE in _ARCHITECTURES


def _op(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, k)


def _denials(table: dict) -> list[bytes]:
    column = _ARCHITECTURES[forks.MACHINE][0]
    numbers = [numbers[column] for numbers in table.values() if numbers[column] is not None]
    operations = [_op(_EQUAL, number, len(numbers) - i) for i, number in enumerate(numbers)]
    return [*operations, _op(_RETURN, _ALLOW), _op(_RETURN, _EPERM)]


def _clone_only(*flags: int) -> list[bytes]:
    """Refuses every clone whose flags are not among `flags`."""
    tests = [_op(_EQUAL, flag, len(flags) - i) for i, flag in enumerate(flags)]
    body = [_op(_LOAD, _ARGUMENT_0), *tests, _op(_RETURN, _EPERM), _op(_RETURN, _ALLOW)]
    return [_op(_EQUAL, forks.CLONE, 0, len(body)), *body]


def forking_filter() -> bytes:
    """The filter of the process that forks: everything denied for good, forks only with our own flags."""
    _, architecture = _ARCHITECTURES[forks.MACHINE]
    operations = [
        _op(_LOAD, _ARCH), _op(_EQUAL, architecture, 1), _op(_RETURN, _KILL),
        _op(_LOAD, _NR),
        _op(_EQUAL, _CLONE3, 0, 1), _op(_RETURN, _ENOSYS),
        # Also catches the x32 calls of x86_64, which have bit 30 set.
        _op(_GREATER_EQUAL, _FIRST_UNKNOWN, 0, 1), _op(_RETURN, _ENOSYS),
        *_clone_only(forks.CHILD_FLAGS, forks.SIBLING_FLAGS),
        *_denials(_DENIED),
    ]  # fmt: skip
    return b"".join(operations)


def program_filter(*, may_fork_siblings: bool) -> bytes:
    """The filter that each fork adds to itself before it runs untrusted code.

    may_fork_siblings: for the process that ran a prefix and must still fork its candidates.
    """
    later = dict(_DENIED_LATER) if may_fork_siblings else _DENIED_LATER | {"prctl": _PRCTL}
    clone = _clone_only(forks.SIBLING_FLAGS) if may_fork_siblings else _clone_only()
    return b"".join([_op(_LOAD, _NR), *clone, *_denials(later)])


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
