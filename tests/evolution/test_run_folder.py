"""Progress of a run: markers, what depends on what, numbers of a phase that was cut off, other processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest

from rstar_jax import files
from rstar_jax.evolution.run_folder import Phase, RunFolder, dependents
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


def test_a_second_process_is_kept_out_and_a_dead_one_is_not(tmp_path):
    script = (
        "import sys, time; from rstar_jax.evolution.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).held(): print('held', flush=True); time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(files.Held, match=f"process {first.pid} on "), RunFolder(tmp_path).held():
            pass
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with RunFolder(tmp_path).held():
            pass
    finally:
        first.kill()
        first.wait()


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
