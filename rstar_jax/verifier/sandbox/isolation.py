"""The walls around untrusted code: installed once in the process that forks, inherited by everything it forks.

Each layer is tried, and `confine` says which of them stand; the host logs it and `Verifier.layers` shows it.

Promised on Linux: limits on address space, CPU time, output, open files and source; an empty
environment; a standard input at its end; no privileges gained by exec, and no capability; a process of its own for each
candidate, killed at its deadline together with whatever it left behind.

Promised where `seccomp` is listed: no system call but those that Python, numpy, sympy and scipy use (`syscalls`); so no
exec, no fork and no thread, no socket, no signal to another process by any road, no change of file modes, owners,
times. Where `landlock` is listed: nothing on disk can be written, and nothing read outside Python's library folders and
/usr/lib. `Limits` asks for both unless it is told otherwise. Where `namespaces` is listed: no network device, and no
process outside can be named; where `root` is listed too, nothing outside these folders can be seen, not even that it is
there. Where `nobody` is listed: not the user's uid (root only, and only without namespaces). Root that would stay root
is refused.

Equal programs print equal bytes: the hash seed is fixed, and chance, clocks and process ids are those of `sameness`,
for Python's library, numpy and sympy.

Elsewhere (macOS) the layers are "limits" and, for root, "nobody": deadlines, and what of the limits the kernel takes; a
prefix is run anew for each of its candidates.

Not promised today: that names, sizes and times of files outside (`stat`), and numbers of processes, cannot be seen
where `root` is missing, as in containers that refuse namespaces: neither landlock nor seccomp looks at paths that are
only asked about; a bound on the number of processes where `seccomp` is missing; a limit on resident memory (address
space is limited); equal bytes from what depends on addresses, or asks the system for time or chance in C, as
`datetime.now()` does; that a program which studies this harness cannot forge its own verdict (program and harness share
one interpreter; a completion record with a secret stops `os._exit` and printed markers, not a walk over frames). A
prefix process may fork siblings with a flag of ours that a program could learn too: they are killed before each of its
candidates, when the request ends, and when they are more than a few, but a few may run beside a candidate. Where a cell
is killed by others, and there are no namespaces, such a stray outlives it. The table of calls for aarch64 has not been
run.
"""

import ctypes
import os
import resource
import sys
import sysconfig

from . import forks, syscalls

_libc = ctypes.PyDLL(None, use_errno=True)
_USER, _PID, _MOUNT = 0x10000000, 0x20000000, 0x00020000
_NEW_NAMESPACES = _USER | _PID | 0x40000000 | 0x08000000 | 0x04000000  # and net, ipc, uts
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CAPSET = {"x86_64": 126, "aarch64": 91}.get(forks.MACHINE, 0)
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(forks.MACHINE, 0)
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_MOUNT_POINTS = ("/mnt", "/media", "/srv", "/tmp", "/run", "/boot", "/home")  # one of them is free of libraries
_NOBODY = 65534
_STACK_BYTES = 16 << 20
_OPEN_FILES = 24
_PROCESSES = 8  # the cell, a prefix, a candidate, and a few that a prefix should not have forked


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the one that forked it ends."""
    if forks.LINUX:
        _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def confine(*, memory_bytes: int, file_bytes: int, own_pids: bool) -> tuple[list[str], int]:
    """Puts up every wall that this host allows.

    Returns the names of those that stand, and a descriptor of the kernel's list of this process' children, which is
    empty where there is none. own_pids: a process id namespace, which forks once: the caller goes on as its first
    process.
    """
    layers = []
    children = -1
    if forks.LINUX and _unshare(own_pids):
        layers.append("namespaces")
        children = _open_children(own_pids)
        if _own_root(_library_folders()):
            layers.append("root")
    elif os.getuid() == 0 and _become_nobody():
        layers.append("nobody")
    if children < 0:
        children = _open_children(False)
    _be_first_out_of_memory()
    _limit_resources(memory_bytes, file_bytes)
    if own_pids and "namespaces" in layers:  # counted in the namespace, which holds nobody else
        resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    layers.append("limits")
    if not forks.LINUX:
        return layers, children
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        layers.append("no_new_privileges")
        if _drop_capabilities():
            layers.append("no_capabilities")
        if _landlock(_library_folders()):
            layers.append("landlock")
        try:
            if syscalls.supported():
                syscalls.Filter(syscalls.forking_filter()).install()
                layers.append("seccomp")
        except OSError:
            pass  # the caller sees that it is not listed
    return layers, children


def _open_children(own_pids: bool) -> int:
    """The kernel's list of this process' children, opened while files outside the libraries still can be.

    own_pids: in the numbers of the new namespace, which takes a /proc of its own for a moment.
    """
    try:
        if not own_pids:
            return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        place = _mount_point(_library_folders())
        if place is None or _libc.unshare(_MOUNT):
            return -1
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        _mount("proc", place, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        try:
            return os.open(f"{place}/self/task/{os.getpid()}/children", os.O_RDONLY)
        finally:
            _libc.umount2(place.encode(), _MNT_DETACH)
    except OSError:
        return os.open(os.devnull, os.O_RDONLY)


def _limit_resources(memory_bytes: int, file_bytes: int) -> None:
    limits = {
        "CORE": 0,
        "AS": memory_bytes,
        "FSIZE": file_bytes,
        "NOFILE": _OPEN_FILES,
        "STACK": _STACK_BYTES,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            if forks.LINUX:
                raise
            # macOS takes no limit on the address space


def _unshare(own_pids: bool) -> bool:
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_NAMESPACES if own_pids else _NEW_NAMESPACES & ~0x20000000):
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_NOBODY} {uid} 1"), ("gid_map", f"{_NOBODY} {gid} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError:
            pass  # unmapped ids are as good as nobody's
    if own_pids:
        pid = os.fork()  # only now a new namespace begins, with this child as its first process
        if pid:
            os.closerange(3, 256)
            _, status = os.waitpid(pid, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
        die_with_parent()
    return True


def _own_root(folders: list[str]) -> bool:
    """Makes a root of nothing but `folders`, for reading, in a mount namespace. Whether that stands: all or nothing."""
    place_of_root = _mount_point(folders)
    if place_of_root is None or _libc.unshare(_MOUNT):
        return False
    try:
        _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
        links = {path: os.readlink(path) for path in ("/lib", "/lib64", "/usr/lib64") if os.path.islink(path)}
        _mount("none", place_of_root, "tmpfs", _MS_NOSUID | _MS_NODEV)
        for folder in folders:
            place = place_of_root + folder
            os.makedirs(place, exist_ok=True)
            _mount(folder, place, None, _MS_BIND | _MS_REC)
        for path, target in links.items():
            if not os.path.lexists(place_of_root + path):
                os.makedirs(os.path.dirname(place_of_root + path), exist_ok=True)
                os.symlink(target, place_of_root + path)
        _mount(None, place_of_root, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    except OSError:
        _libc.umount2(place_of_root.encode(), _MNT_DETACH)
        return False
    os.chdir(place_of_root)
    # The old root lands on top of the new one, from where it is taken away.
    if _libc.syscall(ctypes.c_long(_PIVOT_ROOT), b".", b"."):
        os.chdir("/")
        _libc.umount2(place_of_root.encode(), _MNT_DETACH)
        return False
    _libc.umount2(b".", _MNT_DETACH)
    os.chdir("/")
    return True


def _mount_point(folders: list[str]) -> str | None:
    """A folder over which something can be mounted without hiding any of `folders`."""
    free = (path for path in _MOUNT_POINTS if os.path.isdir(path) and not os.path.islink(path))
    return next((path for path in free if not any(folder.startswith(path + "/") for folder in folders)), None)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    names = [None if name is None else os.fsencode(name) for name in (source, target, kind)]
    if _libc.mount(*names, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def _drop_capabilities() -> bool:
    """Gives up every capability for good, those of a user namespace too."""
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    return bool(_CAPSET) and _libc.syscall(ctypes.c_long(_CAPSET), header, nothing) == 0


def _become_nobody() -> bool:
    folders = _library_folders()
    os.setgroups([])
    os.setresgid(-1, _NOBODY, -1)
    os.setresuid(-1, _NOBODY, -1)
    try:
        for folder in folders:
            os.listdir(folder)
    except PermissionError:  # an interpreter in root's home: unreadable for nobody
        os.setresuid(-1, 0, -1)
        os.setresgid(-1, 0, -1)
        return False
    os.setresuid(-1, 0, -1)
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    return True


def _be_first_out_of_memory() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def _library_folders() -> list[str]:
    """Where Python and the libraries it may load live; the checkout itself is not among them."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {os.path.join(sys.base_prefix, "lib"), "/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64"}
    paths = {os.path.realpath(path) for path in paths if path and os.path.isdir(path)}
    return sorted(path for path in paths if not any(path.startswith(other + "/") for other in paths))


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32)]


def _landlock(folders: list[str]) -> bool:
    """Allows to read under `folders` and nothing else. The size of each rule set is that of the kernel's version."""
    call = _libc.syscall
    version = call(444, None, ctypes.c_long(0), ctypes.c_long(1))
    if version < 1:
        return False
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    rules = _Ruleset(files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = call(444, ctypes.byref(rules), ctypes.c_long(size), ctypes.c_long(0))
    if ruleset < 0:
        return False
    for folder in folders:
        fd = os.open(folder, os.O_PATH)
        rule = _PathBeneath(0b1100, fd)  # read files, list folders
        call(445, ctypes.c_long(ruleset), ctypes.c_long(1), ctypes.byref(rule), ctypes.c_long(0))
        os.close(fd)
    stands = call(446, ctypes.c_long(ruleset), ctypes.c_long(0)) == 0
    os.close(ruleset)
    return stands
