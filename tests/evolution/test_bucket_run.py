"""A whole run in a bucket is the run on a disk; a full disk ends it in one line."""

import dataclasses
import subprocess

import jax
import pytest

from rstar_jax import configuration, files, main
from rstar_jax.evaluation import EvaluationConfig, Greedy
from rstar_jax.evolution import commands, training_commands
from rstar_jax.evolution.config import TrainingRun
from rstar_jax.evolution.evolve import evolve
from rstar_jax.evolution.run_folder import RunFolder
from rstar_jax.problems.procedural import ProceduralProblems
from rstar_jax.search import read_trees
from tests.evolution import test_evolve
from tests.evolution.scripted import ScriptedWorld, read_rows


def config():
    """One round with all its phases and checkpoints of its trainings."""
    whole = test_evolve.config()
    return dataclasses.replace(
        whole,
        rounds=whole.rounds[:1],
        base=dataclasses.replace(whole.base, questions=whole.base.questions[:1]),
        benchmarks=(
            dataclasses.replace(
                whole.benchmarks[0], problems=ProceduralProblems(split="heldout", counts={"chain_sum": (1, 1, 1, 1)})
            ),
        ),
        control=False,
        evaluation=EvaluationConfig(measurements=(Greedy(),)),
    )


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """The scripted world; compiled programs are kept apart from the run."""
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def on_a_disk(tmp_path_factory):
    """What the run leaves behind on a disk."""
    run_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
        evolve(config(), run_dir)
    return left_behind(run_dir)


def left_behind(run_dir):
    """Numbers that no clock has a say in, trees and rows."""
    folder = RunFolder(run_dir)
    phases = [name for name, _, _ in folder.status()]
    numbers = [row for phase in phases for row in folder.rows(phase)]
    numbers = [row for row in numbers if row["name"] != "phase_seconds" and not row["name"].startswith("speed_")]
    trees = [tree.to_dict() for tree in read_trees(folder.round(1) / "trees_1")]
    rows = [read_rows(folder.round(1) / f"{kind}_data") for kind in ("policy", "preference")]
    return numbers, trees, rows


def test_a_whole_run(orbax_bucket, on_a_disk, scripted, capsys):
    page = evolve(config(), str(orbax_bucket))
    assert left_behind(orbax_bucket) == on_a_disk
    assert b"chain_sum" in files.read(page) and str(page).startswith("gs://")
    assert files.names(orbax_bucket / "round_1") == [
        *("policy", "policy_data", "policy_evaluation", "ppm", "preference_data", "selection", "speed_1", "trees_1")
    ], "checkpoints are removed"
    commands.status(run_dir=str(orbax_bucket))
    commands.report(run_dir=str(orbax_bucket))
    training_commands.train_ppm(
        config=TrainingRun(ppm=config().rounds[-1].ppm),
        run_dir=str(orbax_bucket),
        policy=None,
        data=None,
        output=str(orbax_bucket / "another"),
        coordinator=None,
        process=None,
    )
    assert "1_evaluate_pairs" in capsys.readouterr().out and files.exists(orbax_bucket / "another" / "value_head.bin")
    evolve(config(), str(orbax_bucket), redo="1_ppm")
    assert left_behind(orbax_bucket) == on_a_disk


def test_a_full_disk_ends_a_run_in_one_line_and_with_more_room_it_goes_on(
    on_a_disk, scripted, tmp_path, monkeypatch, capsys
):
    """A disk that grows a little each time, so that the run ends at one place after another."""
    monkeypatch.setattr(configuration, "run", lambda mode, files, bindings, flags: mode(config=config(), **flags))
    disk, kilobytes, ended = tmp_path / "disk", 64, []
    disk.mkdir()
    size = f"size={kilobytes}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        while status := main.main(["evolve", f"--run_dir={disk / 'run'}"]):
            *_, line = capsys.readouterr().err.splitlines()
            assert status == 1
            assert line.startswith("rstar: No space left on device; the same command goes on from here: "), line
            ended.append(tuple(files.names(disk / "run/done")))
            kilobytes += 192
            subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)
        assert left_behind(disk / "run") == on_a_disk and len(set(ended)) > 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
