"""Progress of a run: markers, what depends on what, numbers of a phase that was cut off, other processes."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from rstar_jax import files
from rstar_jax.evolution.run_folder import Phase, RunFolder, Shards, Worker, dependents
from tests.evolution.scripted import numbers


@dataclasses.dataclass(frozen=True)
class Training:
    steps: int = 3
    learning_rate: float = 0.5


class Run:
    """problems -> base -> search -> policy, and a control from the base; each writes what it is made of."""

    def __init__(self, path, **settings):
        self.folder = RunFolder(path)
        self.made, self.settings = [], {"training": Training(), "seed": 0, **settings}

    def plan(self):
        def phase(name, inputs, **settings):
            def work():
                self.made.append(name)
                self.folder.add(round=0, name=name, value=1.0, split="train")
                files.publish(self.folder.path / name / "out", f"{name} {settings}")

            return Phase(name=name, round=0, settings=settings, inputs=inputs, outputs=(name,), work=work)

        return [
            phase("0_problems", (), seed=self.settings["seed"]),
            phase("0_base", ("0_problems",), seed=self.settings["seed"]),
            phase("1_search", ("0_base", "0_problems"), rollouts=8),
            phase("1_policy", ("0_base", "1_search"), training=self.settings["training"]),
            phase("1_control", ("0_base",), steps=3),
        ]

    def go(self):
        self.folder.run(self.plan())
        return self.made


NAMES = ["0_problems", "0_base", "1_search", "1_policy", "1_control"]


def test_what_is_done_is_not_done_again_and_all_numbers_are_kept(tmp_path):
    assert Run(tmp_path).go() == NAMES
    again = Run(tmp_path)
    assert again.go() == []
    assert [row["name"] for row in numbers(tmp_path) if row["name"] != "phase_seconds"] == NAMES
    assert [(name, state) for name, state, _ in again.folder.status()] == [(name, "done") for name in NAMES]


@pytest.mark.parametrize("cut", NAMES)
def test_numbers_of_a_phase_that_was_cut_off_are_not_there(tmp_path, cut):
    run = Run(tmp_path)
    plan = run.plan()
    place = NAMES.index(cut)

    def cut_off():
        plan[place].work()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.folder.run([*plan[:place], dataclasses.replace(plan[place], work=cut_off), *plan[place + 1 :]])
    assert [row["name"] for row in numbers(tmp_path) if row["name"] != "phase_seconds"] == NAMES[:place]
    assert ("begun", cut) in [(state, name) for name, state, _ in run.folder.status()]
    again = Run(tmp_path)
    assert again.go() == NAMES[place:]
    assert [row["name"] for row in numbers(tmp_path) if row["name"] != "phase_seconds"] == NAMES


def test_other_settings_are_refused_where_they_matter_before_anything_is_written(tmp_path):
    Run(tmp_path).go()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="1_policy was made with another configuration.*'training.steps = 4'.*--redo="):
        Run(tmp_path, training=Training(steps=4)).go()
    with pytest.raises(ValueError, match="0_problems was made with another configuration.*'seed = 1'"):
        Run(tmp_path, seed=1).go()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_phase_that_was_only_begun_is_not_gone_on_with_under_other_settings(tmp_path):
    run = Run(tmp_path)
    plan = run.plan()
    with pytest.raises(KeyboardInterrupt):
        run.folder.run([*plan[:3], dataclasses.replace(plan[3], work=lambda: (_ for _ in ()).throw(KeyboardInterrupt))])
    with pytest.raises(ValueError, match="1_policy was made with another configuration"):
        Run(tmp_path, training=Training(learning_rate=0.1)).go()
    assert Run(tmp_path).go() == NAMES[3:]


@pytest.mark.parametrize(
    ("name", "again"), [("0_problems", NAMES), ("1_search", ["1_search", "1_policy"]), ("1_control", ["1_control"])]
)
def test_redo_drops_a_phase_and_what_depends_on_it(tmp_path, name, again):
    Run(tmp_path).go()
    run = Run(tmp_path, training=Training(steps=4) if "1_policy" in again else Training())
    dropped = dependents(name, run.plan())
    assert [phase.name for phase in dropped] == again
    run.folder.drop(dropped)
    assert {path.name for path in tmp_path.iterdir()} >= set(NAMES) - set(again)
    assert not {path.name for path in tmp_path.iterdir()} & set(again)
    assert run.go() == again
    assert [row["name"] for row in numbers(tmp_path) if row["name"] != "phase_seconds"] == NAMES
    with pytest.raises(ValueError, match="--redo=2_search: expected one of 0_problems, 0_base"):
        dependents("2_search", run.plan())


def test_one_more_round_is_no_other_run(tmp_path):
    Run(tmp_path).go()
    run = Run(tmp_path)
    more = Phase(
        name="2_search", round=2, settings={}, inputs=("1_policy",), outputs=(), work=lambda: run.made.append(2)
    )
    run.folder.run([*run.plan(), more])
    assert run.made == [2]


def test_what_was_made_of_other_inputs_is_refused(tmp_path):
    Run(tmp_path).go()
    (tmp_path / "done" / "0_problems.json").unlink()
    (tmp_path / "begun" / "0_problems.json").unlink()
    changed = Run(tmp_path, seed=1).plan()[:1] + Run(tmp_path).plan()[1:]
    with pytest.raises(ValueError, match="0_base was made of another 0_problems; --redo=0_base"):
        RunFolder(tmp_path).run(changed)
        RunFolder(tmp_path).run(changed)


class Shared:
    """base, then a phase of shards, then one that sums them up: what each process did stands in LOG."""

    TOTAL = 6

    def __init__(self, path, seconds=0.0):
        self.folder, self.seconds = RunFolder(path), seconds

    def note(self, what):
        with open(self.folder.path / "log", "a") as log:
            log.write(f"{what} {os.getpid()}\n")

    def shard(self, taken):
        for shard in taken:
            self.note(f"shard {shard}")
            time.sleep(self.seconds)
            path = files.shard_path(self.folder.path / "trees", shard, self.TOTAL)
            files.publish(files.marker_path(path), str(shard))

    def plan(self):
        def phase(name, inputs, work, shards=None):
            return Phase(name=name, round=0, settings={}, inputs=inputs, outputs=("trees",), work=work, shards=shards)

        def total():
            assert not self.folder.missing_shards(shards)
            self.note("total")
            self.folder.add(round=0, name="total", value=float(self.TOTAL), split="train")

        shards = Shards(folder="trees", total=self.TOTAL, work=self.shard)
        return [
            phase("0_base", (), lambda: self.note("base")),
            phase("1_search", ("0_base",), total, shards),
            phase("1_policy", ("1_search",), lambda: self.note("policy")),
        ]

    def log(self):
        return [line.rsplit(" ", 1) for line in (self.folder.path / "log").read_text().splitlines()]


def start(path, seconds, worker):
    script = (
        "import sys; from tests.evolution.test_run_folder import Shared; "
        "from rstar_jax.evolution.run_folder import Worker\n"
        "own = Shared(sys.argv[1], float(sys.argv[2])); own.folder.run(own.plan(), Worker.parse(sys.argv[3]))"
    )
    return subprocess.Popen([sys.executable, "-c", script, str(path), str(seconds), worker])


def test_two_processes_share_a_run_and_one_that_is_killed_is_made_up_for(tmp_path):
    workers = [start(tmp_path, 1.0, f"{index}/2") for index in range(2)]
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = Shared(tmp_path).log() if (tmp_path / "log").exists() else []
            if {pid for what, pid in done if what.startswith("shard")} == {str(own.pid) for own in workers}:
                break
            time.sleep(0.05)
        workers[1].kill()
        assert workers[0].wait(timeout=120) == 0
    finally:
        for own in workers:
            own.kill()
            own.wait()
    done = Shared(tmp_path).log()
    assert [what for what, _ in done if not what.startswith("shard")] == ["base", "total", "policy"]
    shards = [what for what, _ in done if what.startswith("shard")]
    assert set(shards) == {f"shard {shard}" for shard in range(Shared.TOTAL)}
    assert len(shards) <= Shared.TOTAL + 1  # the one that was cut off, once more
    assert len({pid for what, pid in done if what.startswith("shard")}) == 2
    assert [name for name, state, _ in RunFolder(tmp_path).status() if state == "done"] == [
        "0_base",
        "1_search",
        "1_policy",
    ]


def test_a_worker_begins_with_its_own_shards(tmp_path):
    run = Shared(tmp_path)
    run.folder.run(run.plan(), Worker.parse("1/3"))
    shards = [what for what, _ in run.log() if what.startswith("shard")]
    assert shards == [f"shard {shard}" for shard in (1, 4, 0, 2, 3, 5)]
    for text in ("3/3", "a/2", "1", "-1/2"):
        with pytest.raises(ValueError, match=f"--worker={text}: expected INDEX/TOTAL"):
            Worker.parse(text)


def test_one_phase_alone_wants_its_inputs(tmp_path):
    run = Shared(tmp_path)
    with pytest.raises(ValueError, match="--phase=1_search: builds on 0_base, expected them to be done"):
        run.folder.run(run.plan(), only="1_search")
    with pytest.raises(ValueError, match="--phase=2_search: expected one of 0_base, 1_search, 1_policy"):
        run.folder.run(run.plan(), only="2_search")
    run.folder.run(run.plan(), only="0_base")
    assert [what for what, _ in run.log()] == ["base"]
    run.folder.run(run.plan(), only="1_search")
    assert ("1_policy", "") in [(name, state) for name, state, _ in run.folder.status()]


def test_who_waits_for_the_shards_of_others_does_not_begin_to_work(tmp_path):
    """Work on shards begins with loading models."""
    run = Shared(tmp_path)
    plan, begun = run.plan(), []
    others = [files.Lease(tmp_path / "leases" / f"1_search-{shard:05d}.lease") for shard in range(run.TOTAL)]

    def work(taken):
        begun.append([shard for shard in taken])
        run.shard(begun[-1])

    plan[1] = dataclasses.replace(plan[1], shards=dataclasses.replace(plan[1].shards, work=work))
    run.folder.run(plan, only="0_base")
    assert all(lease.acquire() for lease in others)
    waiter = threading.Thread(target=run.folder.run, args=(plan,), daemon=True)
    waiter.start()
    time.sleep(2.5)
    assert waiter.is_alive() and not begun
    for lease in others:
        lease.release()
    waiter.join(timeout=60)
    assert not waiter.is_alive() and sorted(itertools.chain.from_iterable(begun)) == list(range(run.TOTAL))


def test_what_is_begun_says_how_many_shards_are_left(tmp_path):
    run = Shared(tmp_path)
    files.publish(files.marker_path(files.shard_path(tmp_path / "trees", 0, run.TOTAL)), "")

    def cut_off(taken):
        raise KeyboardInterrupt

    plan = run.plan()
    plan[1] = dataclasses.replace(plan[1], shards=dataclasses.replace(plan[1].shards, work=cut_off))
    with pytest.raises(KeyboardInterrupt):
        run.folder.run(plan)
    name, state, seconds = run.folder.status()[1]
    assert (name, state) == ("1_search", "1 of 6 shards") and 0 < seconds < 60
    assert run.folder.status()[2] == ("1_policy", "", None)


def test_what_is_at_work_is_not_dropped(tmp_path):
    run = Shared(tmp_path)
    run.folder.run(run.plan())
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from rstar_jax import files\n"
            "with files.Lease(sys.argv[1]): print('held', flush=True); time.sleep(600)",
            str(tmp_path / "leases" / "1_search-00002.lease"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert held.stdout.readline() == "held\n"
        with pytest.raises(files.Held, match=f"process {held.pid} on "):
            run.folder.drop(dependents("1_search", run.plan()))
        assert run.folder.is_done("1_search") and not run.folder.missing_shards(run.plan()[1].shards)
    finally:
        held.kill()
        held.wait()
    run.folder.drop(dependents("1_search", run.plan()))
    assert not run.folder.is_done("1_search") and len(run.folder.missing_shards(run.plan()[1].shards)) == run.TOTAL


def test_another_configuration_of_a_folder_is_refused(tmp_path):
    RunFolder(tmp_path).check_configuration("a = 1\nb = 2\n")
    RunFolder(tmp_path).check_configuration("a = 1\nb = 2\n")
    with pytest.raises(ValueError, match="made with another configuration; the first difference is 'b = 3'"):
        RunFolder(tmp_path).check_configuration("a = 1\nb = 3\n")


def test_a_marker_that_is_none_is_named(tmp_path):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "0_base.json").write_text(json.dumps({"rows": 3}))
    with pytest.raises(ValueError, match="0_base.json: expected a marker with settings, inputs, rows, place"):
        RunFolder(tmp_path).settings("0_base")
