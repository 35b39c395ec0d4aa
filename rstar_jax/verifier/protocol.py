"""What goes to the verifier and what comes back."""

import dataclasses
import enum


class Verdict(enum.StrEnum):
    """How the execution of one candidate ended."""

    OK = "ok"
    ERROR = "error"  # an exception
    EXIT = "exit"  # SystemExit
    EARLY_EXIT = "early_exit"  # the process ended without finishing the program
    TIMEOUT_CPU = "timeout_cpu"
    TIMEOUT_WALL = "timeout_wall"
    MEMORY = "memory"
    CRASH = "crash"  # killed by a signal of its own making
    OUTPUT_LIMIT = "output_limit"
    REJECTED = "rejected"  # not run: too long, or the prefix itself failed
    UNVERIFIED = "unverified"  # a fault of ours, twice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one candidate may use. CPU time decides; wall time is only a cap, so that a busy host changes no verdict.

    require_seccomp: whether to run nothing on a host without it, where programs could reach processes and the network.
    require_landlock: whether to run nothing on a host without it, where programs could read and write files.
    """

    cpu_seconds: float = 2.0
    wall_seconds: float = 10.0
    prefix_cpu_seconds: float = 10.0  # for all steps of a prefix together, run once per request
    prefix_wall_seconds: float = 30.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 4096
    source_bytes: int = 1 << 16
    require_seccomp: bool = True
    require_landlock: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Code that already ran (`prefix`) and the candidates that may follow it, each run in a world of its own."""

    prefix: str
    candidates: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What running one candidate gave. `output` is what the candidate printed, without what the prefix printed.

    error: "Type: message", empty if there was none.
    """

    verdict: Verdict
    output: str = ""
    error: str = ""
    cpu_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the program ran to its end without a fault."""
        return self.verdict is Verdict.OK
