"""The run folder: its phases, what of them is done, and their numbers. A killed run goes on from it.

    RUN/done/2_policy.json     written when all stands that the phase writes: {"settings", "inputs", "rows", "place"}
    RUN/begun/2_policy.json    written before its work begins: {"settings", "inputs"}
    RUN/plan.json              the names of all phases
    RUN/run.lease              one process at a time works on a run

A phase's marker says what it was made with: the settings that it depends on, and a digest of each marker that it built
on. Another mesh, another number of workers or one more round is no other run; another learning rate is, from the phase
on that it is for.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from rstar_jax import configuration, files, json_lines

_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A job of a run.

    name: unique in the run. round: of its numbers. settings: {name: what it depends on}, dataclasses or plain values,
        or the text of them, as a marker has it.
    inputs: the phases whose results it reads. outputs: files and folders of the run that it writes.
    work: does it; where it was cut off, it goes on with what is there or begins again.
    """

    name: str
    round: int
    settings: Mapping[str, Any] | str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[], None]

    @property
    def title(self) -> str:
        """Its name without the round."""
        return self.name.partition("_")[2]


def dependents(name: str, phases: Sequence[Phase]) -> list[Phase]:
    """The phase of that name, and those that are built on it, in order. Raises: ValueError if there is none."""
    names = [phase.name for phase in phases]
    if name not in names:
        raise ValueError(f"--redo={name}: expected one of {', '.join(names)}")
    found = {name}
    for phase in phases:
        if found & set(phase.inputs):
            found.add(phase.name)
    return [phase for phase in phases if phase.name in found]


class RunFolder:
    """Paths, progress and numbers of one run."""

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)
        self._rows: list[dict[str, Any]] = []

    def round(self, number: int) -> epath.Path:
        """The folder of a round; 0 is the bootstrap."""
        return self.path / f"round_{number}"

    def add(self, *, round: int, name: str, value: float, split: str, **more: Any) -> None:
        """A number of the phase that is at work; it is kept when the phase is done."""
        self._rows.append({"round": round, "name": name, "value": value, "split": split, **more})

    def is_done(self, phase: str) -> bool:
        """Whether the phase of this name is done."""
        return files.exists(self._marker("done", phase))

    def settings(self, phase: str) -> str | None:
        """What the phase was done with, as text; None if it is not done."""
        marker = self._markers("done").get(phase)
        return None if marker is None else marker["settings"]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out of the run. Raises `files.Held`, which names the one that is in it."""
        with files.Lease(self.path / "run.lease"):
            yield

    def run(self, phases: Sequence[Phase]) -> None:
        """Does the phases that are not done, in order.

        Raises: ValueError, before anything is written, if one was done or begun with other settings than it has now.
        """
        self.check(phases)
        files.publish(self.path / _PLAN, json.dumps([phase.name for phase in phases]))
        done = self._markers("done")
        for place, phase in enumerate(phases):
            if phase.name not in done:
                made_of = self._made_of(phase, done)
                files.publish(self._marker("begun", phase.name), json.dumps(made_of))
                self._rows, start = [], time.perf_counter()
                phase.work()
                seconds = time.perf_counter() - start
                self.add(round=phase.round, name="phase_seconds", value=seconds, split="train", phase=phase.title)
                done[phase.name] = {**made_of, "rows": self._rows, "place": place}
                files.publish(self._marker("done", phase.name), json.dumps(done[phase.name]))

    def status(self) -> list[tuple[str, str, float | None]]:
        """(name, state, seconds) of every phase that was planned when the run was started last.

        Raises: FileNotFoundError if there is no run.
        """
        if not files.exists(self.path / _PLAN):
            raise FileNotFoundError(f"--run_dir={self.path}: no run there")
        done, begun = self._markers("done"), self._markers("begun")
        found = []
        for name in json.loads(files.read(self.path / _PLAN)):
            seconds = [row["value"] for row in done.get(name, {"rows": ()})["rows"] if row["name"] == "phase_seconds"]
            state = "done" if name in done else "begun" if name in begun else ""
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
        """Removes what these phases have made; they are done again."""
        for phase in reversed(phases):  # what was built on others goes first: a kill leaves no phase without its inputs
            files.remove(self._marker("done", phase.name))
            for output in phase.outputs:
                files.remove_tree(self.path / output)
            files.remove(self._marker("begun", phase.name))

    def check_configuration(self, told: str, flag: str = "--run_dir") -> None:
        """Keeps the configuration of a new folder; raises ValueError if the folder was made with another one.

        flag: of the command line, which named the folder.
        """
        file = self.path / "config.gin"
        if not file.exists():
            files.publish(file, told)
            return
        try:
            kept = file.read_text()
        except UnicodeDecodeError:
            raise ValueError(f"{file}: not a text; remove it if the folder is yours") from None
        if kept != told:
            raise ValueError(
                f"{file}: this folder was made with another configuration; the first difference is "
                f"{_difference(kept, told)!r}. Give another {flag}, or the old configuration"
            )

    def log_start(self, **facts: Any) -> None:
        """Adds a line to `starts.jsonl`: on what the run was begun, or went on."""
        file = self.path / "starts.jsonl"
        before = file.read_text() if file.exists() else ""
        files.publish(file, before + json.dumps(facts) + "\n")

    def _made_of(self, phase: Phase, done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        inputs = {name: _digest(done[name]) for name in phase.inputs if name in done}
        return {"settings": _text(phase), "inputs": inputs}

    def _marker(self, kind: str, phase: str) -> epath.Path:
        return self.path / kind / f"{phase}.json"

    def _markers(self, kind: str) -> dict[str, dict[str, Any]]:
        """{phase: its marker}, in the order of phases, from one listing."""
        found = {}
        for name, content in files.markers(self.path / kind, ".json").items():
            where = str(self.path / kind / name)
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
