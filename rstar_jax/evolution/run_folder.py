"""The run folder: its phases, what of them is done, and their numbers. A killed run goes on from it.

    RUN/done/2_policy.json     written when all stands that the phase writes: {"settings", "inputs", "rows", "place"}
    RUN/begun/2_policy.json    written before its work begins: {"settings", "inputs"}
    RUN/plan.json              all phases, in order
    RUN/leases/2_policy.lease  one process at a time does a phase, or a shard of one
    RUN/attempts/2_policy/     how long processes were at work on it (`attempts`)

A phase's marker says what it was made with: the settings that it depends on, and a digest of each marker that it built
on. Another mesh, another number of workers or one more round is no other run; another learning rate is, from the phase
on that it is for.

Any number of processes may work on a run. Each does the first phase that is not done, whose inputs are, and that nobody
else does; of a phase in shards, those shards. Where a process dies, another takes over.
"""

import dataclasses
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from rstar_jax import configuration, files, json_lines
from rstar_jax.evolution.attempts import Attempt, worked_seconds

_PLAN = "plan.json"
_POLL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """One of several processes that share a run: it begins with the shards s for which s % total == index."""

    index: int = 0
    total: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Worker":
        """Of "3/8", counted from 0; None is the only one. Raises ValueError."""
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError(f"--worker={text}: expected INDEX/TOTAL, such as 0/8 to 7/8")
        return cls(index=int(match[1]), total=int(match[2]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards:
    """The part of a phase's work that comes in pieces.

    folder: where FOLDER/shard-00003-of-00008.done says that one is done, in the run. work: does those that it is given,
    and asks for the next when it has a place for it.
    """

    folder: str
    total: int
    work: Callable[["Taken"], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A job of a run.

    name: unique in the run. round: of its numbers. settings: {name: what it depends on}, dataclasses or plain values,
        or the text of them, as a marker has it.
    inputs: the phases whose results it reads. outputs: files and folders of the run that it writes.
    shards: done first, by any process. work: does the phase, or what is left when its shards are done; where it was cut
        off, it goes on with what is there or begins again.
    """

    name: str
    round: int
    settings: Mapping[str, Any] | str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[], None]
    shards: Shards | None = None

    @property
    def title(self) -> str:
        """Its name without the round."""
        return self.name.partition("_")[2]


def dependents(name: str, phases: Sequence[Phase]) -> list[Phase]:
    """The phase of that name, and those that are built on it, in order. Raises: ValueError if there is none."""
    found = {named(name, phases, "--redo").name}
    for phase in phases:
        if found & set(phase.inputs):
            found.add(phase.name)
    return [phase for phase in phases if phase.name in found]


def named(name: str, phases: Sequence[Phase], flag: str = "--phase") -> Phase:
    """The phase of that name. Raises: ValueError, which names the flag, if there is none."""
    for phase in phases:
        if phase.name == name:
            return phase
    raise ValueError(f"{flag}={name}: expected one of {', '.join(phase.name for phase in phases)}")


class Taken(Iterator[int]):
    """The shards of a phase that this process may do: its own first, then what others have left.

    Each is leased when it is asked for, until it is done or the work on shards ends.
    """

    def __init__(self, folder: "RunFolder", phase: Phase, worker: Worker, leases: dict[str, files.Lease]):
        self._folder, self._phase, self._leases = folder, phase, leases
        missing = folder.missing_shards(phase.shards)
        self._order = sorted(missing, key=lambda shard: (shard % worker.total != worker.index, shard))
        self._held: dict[int, files.Lease] = {}
        self._first = self._take()
        self.is_empty = self._first is None  # who works on shards loads models, and need not for none

    def __next__(self) -> int:
        shard, self._first = self._take() if self._first is None else self._first, None
        if shard is None:
            raise StopIteration
        return shard

    def _take(self) -> int | None:
        self._release([shard for shard in self._held if self._folder.has_shard(self._phase.shards, shard)])
        while self._order:
            shard = self._order.pop(0)
            lease = self._folder.lease(f"{self._phase.name}-{shard:05d}", self._leases)
            if not lease.acquire():
                continue
            self._held[shard] = lease
            if not self._folder.has_shard(self._phase.shards, shard):
                return shard
            self._release([shard])
        return None

    def close(self) -> None:
        """Gives all back."""
        self._release(list(self._held))

    def _release(self, shards: Sequence[int]) -> None:
        for shard in shards:
            self._held.pop(shard).release()


class RunFolder:
    """Paths, progress and numbers of one run."""

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self._rows: list[dict[str, Any]] = []

    def round(self, number: int) -> epath.Path:
        """The folder of a round; 0 is what was before the first."""
        return self.path / f"round_{number}"

    def rounds(self) -> list[int]:
        """The numbers of the rounds that have a folder, in order."""
        found = (re.fullmatch(r"round_(\d+)", name) for name in files.names(self.path))
        return sorted(int(match[1]) for match in found if match)

    def add(self, *, round: int, name: str, value: float, split: str, **more: Any) -> None:
        """A number of the phase that is at work; it is kept when the phase is done."""
        self._rows.append({"round": round, "name": name, "value": value, "split": split, **more})

    def is_done(self, phase: str) -> bool:
        """Whether the phase of this name is done."""
        return files.exists(self._marker("done", phase))

    def settings(self, phase: str) -> str | None:
        """What the phase was done with, as text; None if it is not done."""
        marker = self._markers("done", [phase]).get(phase)
        return None if marker is None else marker["settings"]

    def rows(self, phase: str) -> list[dict[str, Any]] | None:
        """The numbers of a phase that is done; None if it is not."""
        marker = self._markers("done", [phase]).get(phase)
        return None if marker is None else marker["rows"]

    def lease(self, name: str, known: dict[str, files.Lease]) -> files.Lease:
        """The lease of a job; the same object each time, which sees whether another process still refreshes it."""
        return known.setdefault(name, files.Lease(self.path / "leases" / f"{name}.lease"))

    def missing_shards(self, shards: Shards) -> list[int]:
        """The shards that are not done, by one listing, which may be old."""
        return files.missing_shards(self.path / shards.folder, shards.total)

    def has_shard(self, shards: Shards, shard: int) -> bool:
        """Whether a shard is done."""
        return files.exists(files.marker_path(files.shard_path(self.path / shards.folder, shard, shards.total)))

    def run(
        self,
        phases: Sequence[Phase],
        worker: Worker | None = None,
        only: str | None = None,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Does the phases that are not done, with other processes, until all are. only: one of them, if not all.

        say: what is told that others are waited for.
        Raises: ValueError, before anything is written, if one was done or begun with other settings than it has now, or
        if `only` builds on what is not done.
        """
        self.check(phases)
        planned = [
            {"name": own.name, "shards": own.shards and {"folder": own.shards.folder, "total": own.shards.total}}
            for own in phases
        ]
        files.publish(self.path / _PLAN, json.dumps(planned))
        names, leases, waited = [phase.name for phase in phases], {}, set()
        done = self._markers("done", names)
        wanted = phases if only is None else [named(only, phases)]
        while left := [phase for phase in wanted if phase.name not in done]:
            ready = [phase for phase in left if set(phase.inputs) <= done.keys()]
            if only is not None and not ready:
                missing = [name for name in left[0].inputs if name not in done]
                raise ValueError(f"--phase={only}: builds on {', '.join(missing)}, expected them to be done")
            for phase in ready:
                if self._do(phase, done, names.index(phase.name), worker or Worker(), leases):
                    found = [phase.name]
                    break
            else:
                if (name := ready[0].name) not in waited:
                    waited.add(name)
                    say(f"waits for {name}, {leases[name].holder if name in leases else 'which others do'}")
                time.sleep(_POLL_SECONDS)
                there = set(files.names(self.path / "done"))
                found = [name for name in names if f"{name}.json" in there]
            done |= self._markers("done", [name for name in found if name not in done])

    def _do(
        self,
        phase: Phase,
        done: Mapping[str, Mapping[str, Any]],
        place: int,
        worker: Worker,
        leases: dict[str, files.Lease],
    ) -> bool:
        """Does of a phase what nobody else does; whether there was something."""
        made_of = self._made_of(phase, done)
        self._rows = []
        if phase.shards is not None:
            taken = Taken(self, phase, worker, leases)
            try:
                if not taken.is_empty:
                    files.publish(self._marker("begun", phase.name), json.dumps(made_of))
                    with Attempt(self._attempts(phase.name)):
                        phase.shards.work(taken)
            finally:
                taken.close()
            if self.missing_shards(phase.shards):
                return not taken.is_empty
        lease = self.lease(phase.name, leases)
        if not lease.acquire():
            return False
        try:
            if not self.is_done(phase.name):
                files.publish(self._marker("begun", phase.name), json.dumps(made_of))
                with Attempt(self._attempts(phase.name)):
                    phase.work()
                seconds = worked_seconds(self._attempts(phase.name))
                self.add(round=phase.round, name="phase_seconds", value=seconds, split="train", phase=phase.title)
                lease.check()
                marker = {**made_of, "rows": self._rows, "place": place}
                files.publish(self._marker("done", phase.name), json.dumps(marker))
        finally:
            lease.release()
        return True

    def status(self) -> list[tuple[str, str, float | None]]:
        """(name, state, seconds of work until now) of every phase that was planned when the run was started last.

        Raises: FileNotFoundError if there is no run.
        """
        if not files.exists(self.path / _PLAN):
            raise FileNotFoundError(f"--run_dir={self.path}: no run there")
        done, begun = self._markers("done"), self._markers("begun")
        found = []
        for planned in json.loads(files.read(self.path / _PLAN)):
            name, shards = planned["name"], planned["shards"]
            state = "done" if name in done else "begun" if name in begun else ""
            seconds = [row["value"] for row in done.get(name, {"rows": ()})["rows"] if row["name"] == "phase_seconds"]
            if state == "begun":
                seconds = [worked_seconds(self._attempts(name))]
            if state == "begun" and shards:
                left = len(files.missing_shards(self.path / shards["folder"], shards["total"]))
                state = f"{shards['total'] - left} of {shards['total']} shards"
            found.append((name, state, seconds[0] if seconds else None))
        return found

    def check(self, phases: Sequence[Phase]) -> None:
        """Raises ValueError if a phase was done or begun with other settings, or on other inputs, than it has now."""
        done, begun = self._markers("done"), self._markers("begun")
        for phase in phases:
            before = done.get(phase.name) or begun.get(phase.name)
            if before is None:
                continue
            settings = _text(phase)
            if before["settings"] != settings:
                raise ValueError(
                    f"{self.path}: {phase.name} was made with another configuration; the first difference is "
                    f"{_difference(before['settings'], settings)!r}. --redo={phase.name} makes it and what depends on "
                    f"it again; or give another --run_dir"
                )
            now = self._made_of(phase, done)["inputs"]
            changed = [name for name, digest in now.items() if before["inputs"].get(name, digest) != digest]
            if changed:
                raise ValueError(
                    f"{self.path}: {phase.name} was made of another {changed[0]}; --redo={phase.name} makes it again"
                )

    def drop(self, phases: Sequence[Phase]) -> None:
        """Removes what these phases have made; they are done again.

        Raises: `files.Held`, before anything is removed, while another process is at work on one of them.
        """
        for file in files.names(self.path / "leases"):
            job = file.partition(".lease")[0]
            if any(job == phase.name or job.startswith(f"{phase.name}-") for phase in phases):
                with files.Lease(self.path / "leases" / f"{job}.lease"):
                    pass
        for phase in reversed(phases):  # what was built on others goes first: a kill leaves no phase without its inputs
            files.remove(self._marker("done", phase.name))
            for output in phase.outputs:
                files.remove_tree(self.path / output)
            files.remove_tree(self._attempts(phase.name))
            files.remove(self._marker("begun", phase.name))

    def check_configuration(self, told: str, flag: str = "--run_dir") -> None:
        """Keeps the configuration of a new folder; raises ValueError if the folder was made with another one.

        flag: of the command line, which named the folder.
        """
        file = self.path / "config.gin"
        if not files.exists(file):
            files.publish(file, told)
            return
        try:
            kept = files.read(file).decode()
        except UnicodeDecodeError:
            raise ValueError(f"{file}: not a text; remove it if the folder is yours") from None
        if kept != told:
            raise ValueError(
                f"{file}: this folder was made with another configuration; the first difference is "
                f"{_difference(kept, told)!r}. Give another {flag}, or the old configuration"
            )

    def log_start(self, **facts: Any) -> None:
        """Keeps on what a process has begun, or gone on with, the run: `starts/TIME-HOST-PID.json`."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        files.publish(self.path / "starts" / f"{stamp}-{socket.gethostname()}-{os.getpid()}.json", json.dumps(facts))

    def _made_of(self, phase: Phase, done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        inputs = {name: _digest(done[name]) for name in phase.inputs if name in done}
        return {"settings": _text(phase), "inputs": inputs}

    def _marker(self, kind: str, phase: str) -> epath.Path:
        return self.path / kind / f"{phase}.json"

    def _attempts(self, phase: str) -> epath.Path:
        return self.path / "attempts" / phase

    def _markers(self, kind: str, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """{phase: its marker}, in the order of phases: of these, or of all by one listing."""
        folder = self.path / kind
        if names is None:
            contents = files.markers(folder, ".json")
        else:
            read = files.read_all([self._marker(kind, name) for name in names])
            contents = {os.path.basename(path): content for path, content in read.items()}
        found = {}
        for name, content in contents.items():
            where = str(folder / name)
            marker = json_lines.value(content.decode("utf-8", "replace"), where, digits=False)
            wanted = {"settings": str, "inputs": dict} | ({"rows": list, "place": int} if kind == "done" else {})
            if not isinstance(marker, dict) or any(not isinstance(marker.get(k), v) for k, v in wanted.items()):
                raise ValueError(
                    f"{where}: expected a marker with {', '.join(wanted)}; remove it to do the phase again"
                )
            found[name.removesuffix(".json")] = marker
        return dict(sorted(found.items(), key=lambda item: item[1].get("place", 0)))


def _text(phase: Phase) -> str:
    if isinstance(phase.settings, str):
        return phase.settings
    return "".join(configuration.operative(value, name) for name, value in phase.settings.items())


def _digest(marker: Mapping[str, Any]) -> str:
    """Of what a phase was made with: made again with the same, it is the same."""
    told = json.dumps([marker["settings"], marker["inputs"]], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _difference(kept: str, told: str) -> str:
    before, now = kept.split("\n"), told.split("\n")
    changed = [line for line in now if line not in before] + [line for line in before if line not in now]
    return (changed or ["the order of lines"])[0].strip()
