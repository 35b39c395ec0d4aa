"""Runs a command as on another kind of host, and says what processes it left: exit status 99 if there are any.

    python -m tests.verifier.hosts [--no-namespaces] [--uid=UID] -- COMMAND...

--no-namespaces: `unshare` is refused, as by the default seccomp profile of container engines. --uid: another user, for
whom the interpreter is readable, wherever it lives. Needs root and Linux.
"""

import argparse
import ctypes
import os
import pathlib
import subprocess
import sys
import time

from rstar_jax.verifier.sandbox import syscalls

LEFT_PROCESSES = 99
_PATIENCE_SECONDS = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


def make_interpreter_readable() -> None:
    """Covers the closed folder that the interpreter lies in, if there is one, for this process and its children."""
    home = pathlib.Path(sys.base_prefix).resolve()
    closed = next((folder for folder in reversed(home.parents) if not folder.stat().st_mode & 0o001), None)
    if closed is None:
        return
    if _libc.unshare(0x00020000):  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "no mount namespace")
    aside = pathlib.Path(f"/run/interpreter-{os.getpid()}")
    script = (
        f"mount --make-rprivate / && mkdir -p {aside} && mount --rbind {home} {aside} && "
        f"mount -t tmpfs -o mode=755 none {closed} && mkdir -p {home} && mount --move {aside} {home}; rmdir {aside}"
    )
    subprocess.run(["sh", "-ec", script], check=True)


def refuse_namespaces() -> None:
    """Makes `unshare` fail for this process and its children."""
    syscalls.Filter(syscalls.refusing({"unshare": (272, 97)})).install()


def children() -> list[str]:
    """Process ids of this process' children."""
    return pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-namespaces", action="store_true")
    parser.add_argument("--uid", type=int)
    parser.add_argument("command", nargs="+")
    flags = parser.parse_args()
    _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what loses its parent becomes a child of this process
    pid = os.fork()
    if pid == 0:
        make_interpreter_readable()
        if flags.no_namespaces:
            refuse_namespaces()
        if flags.uid is not None:
            os.setgroups([])
            os.setresgid(flags.uid, flags.uid, flags.uid)
            os.setresuid(flags.uid, flags.uid, flags.uid)
        os.execvp(flags.command[0], flags.command)
    _, status = os.waitpid(pid, 0)
    end = time.monotonic() + _PATIENCE_SECONDS
    while children() and time.monotonic() < end:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        time.sleep(0.01)
    if left := children():
        names = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:200] for pid in left]
        print(f"left behind: {names}", file=sys.stderr)
        sys.exit(LEFT_PROCESSES)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
