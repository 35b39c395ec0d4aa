"""Starts, asks and ends one sandboxed process. By `subprocess` only: a process that holds JAX must never fork."""

import os
import pathlib
import select
import socket
import subprocess
import sys

from rstar_jax.verifier.sandbox import frames

_START = (
    "import importlib, sys; folder, module, fd = sys.argv[1:]; sys.path.insert(0, folder); "
    "module = importlib.import_module(module); sys.path.remove(folder); module.main(int(fd))"
)
# A fixed hash seed, so that sets print in the same order in every process. One thread, so that it can fork.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "SYMPY_GROUND_TYPES": "python",
}
_START_SECONDS = 120.0
_END_SECONDS = 0.5


class ProcessLost(Exception):
    """The process ended, or did not answer in time, or answered nonsense."""


class SandboxProcess:
    """A process running `sandbox/<module>.py`, which answers one message at a time, the first of them `begin`'s.

    hello: what it answered that. Raises ProcessLost if it cannot be started.
    """

    def __init__(self, module: str):
        self._socket, theirs = socket.socketpair()
        environment = dict(_ENVIRONMENT)
        if "LD_LIBRARY_PATH" in os.environ:  # some Pythons cannot start without it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        folder = str(pathlib.Path(__file__).parent)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", _START, folder, f"sandbox.{module}", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._socket.close()
            raise ProcessLost(f"{sys.executable} does not start: {error}") from error
        finally:
            theirs.close()

    def begin(self, settings: dict) -> None:
        """Tells it `settings`, and waits until it is up. Raises ProcessLost if it does not come up.

        Apart from the start, so that who may `kill` it knows it before this takes its seconds.
        """
        self.hello = self.ask(settings, timeout=_START_SECONDS)

    @property
    def pid(self) -> int:
        """The process id of what was started; a sandbox with namespaces runs in a child of it."""
        return self._process.pid

    def ask(self, message: object, timeout: float) -> dict:
        """Sends `message` and waits for the answer. Raises ProcessLost; the process is then of no more use."""
        self.send(message, timeout)
        return self.receive(timeout)

    def send(self, message: object, timeout: float) -> None:
        """Sends one message. Raises ProcessLost."""
        try:
            self._socket.settimeout(timeout)
            frames.send(self._socket, message)
        except (OSError, ValueError) as error:
            raise ProcessLost(f"{type(error).__name__}: {error}") from error

    def receive(self, timeout: float) -> dict:
        """Receives one message. Raises ProcessLost, also when `timeout` seconds pass."""
        try:
            self._socket.settimeout(timeout)
            answer = frames.receive(self._socket)
        except (OSError, ValueError) as error:
            raise ProcessLost(f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, dict):
            raise ProcessLost("it ended")
        if "fault" in answer:
            raise ProcessLost(str(answer["fault"]))
        return answer

    def has_message(self, timeout: float) -> bool:
        """Whether there is something to receive, or the process has ended, before `timeout` seconds pass."""
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(timeout * 1000))
        except (OSError, ValueError) as error:
            raise ProcessLost(f"{type(error).__name__}: {error}") from error

    def kill(self) -> None:
        """Ends the process and everything it forked. From any thread; one that waits in `ask` gets ProcessLost.

        It is told first, so that it can kill what others would not find: without namespaces, what lost its parent.
        """
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kills, and gives the socket back: only from the thread that asks."""
        self.kill()
        self._socket.close()
