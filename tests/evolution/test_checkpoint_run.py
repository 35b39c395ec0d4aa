"""A run from a checkpoint: few-shot annotation, passes, problems of files, epochs, benchmarks, a dry run, workers."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from rstar_jax import files, models
from rstar_jax.evaluation import EvaluationConfig, Greedy, Samples
from rstar_jax.evolution import commands, training_commands
from rstar_jax.evolution.config import Benchmark, Checkpoint, Pass, TrainingRun
from rstar_jax.evolution.evolve import evolve
from rstar_jax.evolution.forecast import STEP_TOKENS, STEPS, expansions, size_of
from rstar_jax.evolution.run_folder import RunFolder, Worker
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.problems import procedural
from rstar_jax.problems.procedural import ProceduralProblems
from rstar_jax.problems.sources import FileProblems
from rstar_jax.search import SchedulerConfig, all_ends, read_trees
from rstar_jax.training import TrainingConfig
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests.evolution.scripted import ScriptedWorld, numbers, read_rows
from tests.evolution.test_evolve import SEARCH, config, settled

ROOMY = dataclasses.replace(SEARCH, rollouts=2, max_prefix_tokens=1500)
TRAINING = TrainingConfig(epochs=1, batch=4, learning_rate=1e-3, buckets=(1500,), packed=True)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Two rounds of GSM8K's shape: a checkpoint annotates few-shot; problems of a file; a training mesh of its own."""
    folder, whole = tmp_path_factory.mktemp("given"), config()
    worked = procedural.generate("chain_sum", 1, 30, split="corpus", seed=0)
    tokenizer = Tokenizer.train([procedural.worked_example(problem) for problem in worked], 300)
    models.save(models.fresh(whole.base.model, make_mesh(whole.mesh), tokenizer, seed=5), folder / "checkpoint")
    problems = ProceduralProblems(split="train", counts={"chain_sum": (3, 3, 1, 0)}).read()
    (folder / "few_shot.txt").write_text("Each problem is solved with code.\n\n")
    lines = [json.dumps({"question": own.question, "answer": own.answers[0], "level": own.level}) for own in problems]
    (folder / "problems.jsonl").write_text("\n".join(lines))
    base = Checkpoint(source=str(folder / "checkpoint"))
    passes = (Pass(search=ROOMY), Pass(search=ROOMY, only=("hard", "medium"), trees=2))
    first = dataclasses.replace(
        whole.rounds[0],
        passes=passes,
        annotator=dataclasses.replace(base, few_shot=str(folder / "few_shot.txt")),
        problems=None,
        policy=TRAINING,
        ppm=TRAINING,
        learn_from="round",
        replay=0.0,
    )
    second = dataclasses.replace(
        first, annotator=None, passes=(Pass(search=dataclasses.replace(ROOMY, value_mode="ppm")),)
    )
    return dataclasses.replace(
        whole,
        base=base,
        problems=FileProblems(files=(str(folder / "problems.jsonl"),)),
        rounds=(first, second),
        benchmarks=(
            dataclasses.replace(whole.benchmarks[0], limit=4),
            Benchmark(name="late", problems=whole.benchmarks[0].problems, limit=2, rounds="last"),
        ),
        evaluation=EvaluationConfig(measurements=(Greedy(), Samples(n=2))),
        training_mesh=MeshConfig(data=1, fsdp=2),
        control=False,
        scheduling=SchedulerConfig(patience=None),
        shards=3,
        decoding=dataclasses.replace(
            whole.decoding, max_prefix_tokens=1500, prefix_buckets=(1504,), pages=1200, extend_buckets=(96, 512)
        ),
    )


@pytest.fixture(scope="module")
def run_dir(settings, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
        evolve(settings, run_dir)
    return run_dir


def test_the_annotator_s_preamble_is_in_no_tree_of_a_policy_and_in_no_row(run_dir):
    first, second = (list(read_trees(run_dir / f"round_{number}/trees_1")) for number in (1, 2))
    assert len(first) == len(second) == 7
    roots = [{tree.to_dict()["columns"]["text"][0] for tree in trees} for trees in (first, second)]
    assert all(text.startswith("Each problem is solved") for text in roots[0])
    assert not any("Each problem" in text for text in roots[1])
    rows = read_rows(run_dir / "round_1/policy_data") + read_rows(run_dir / "round_1/preference_data")
    assert rows and not any("Each problem" in value for row in rows for value in row.values() if isinstance(value, str))


def test_a_pass_searches_what_the_one_before_has_left(run_dir):
    ends = all_ends(run_dir / "round_1/trees_1", 3)
    again = list(read_trees(run_dir / "round_1/trees_2"))
    left = {problem for problem, own in ends.items() if own.difficulty != "easy"}
    assert 0 < len(left) < len(ends) == 7
    assert {tree.problem.id for tree in again} == left and len(again) == 2 * len(left)
    keys = [tree.key for tree in again] + [tree.key for tree in read_trees(run_dir / "round_1/trees_1")]
    assert len(set(keys)) == len(keys)
    rows = [row for row in numbers(run_dir) if row.get("kind") == "pass 2"]
    counts = {row["name"]: row["value"] for row in rows}
    assert counts["searched_problems"] == len(left)
    assert sum(counts[f"{own}_problems"] for own in ("easy", "medium", "hard")) == 7
    assert counts["searched_tokens"] == sum(own.tokens for own in all_ends(run_dir / "round_1/trees_2", 3).values()) > 0


def test_at_most_two_trajectories_a_problem_over_all_passes(run_dir):
    rows = read_rows(run_dir / "round_1/policy_data")
    by_problem = {}
    for row in rows:
        by_problem.setdefault(row["problem"], []).append(row["response"])
    assert all(len(set(own)) == len(own) <= 2 for own in by_problem.values())
    assert [row["problem"] for row in rows] == sorted(row["problem"] for row in rows)


def test_benchmarks_have_numbers_of_their_own(run_dir):
    rows = [row for row in numbers(run_dir) if row["name"] == "greedy_accuracy" and "level" not in row]
    assert [(row["round"], row["benchmark"], row["n"]) for row in rows] == [
        (0, "heldout", 4),
        (1, "heldout", 4),
        (2, "heldout", 4),
        (2, "late", 2),
    ]
    page = (run_dir / "report" / "index.html").read_text()
    assert "late" in page and "Benchmarks" in page


def test_three_workers_leave_what_one_leaves(settings, run_dir, tmp_path, monkeypatch):
    """In turn, each killed at another place: what one has begun, the next ends."""
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    publish, done = files.publish, []

    class Killed(Exception):
        pass

    def counted(path, content):
        publish(path, content)
        if str(path).endswith((".done", "1_select.json")):
            done.append(path)
            if len(done) in (2, 5):
                raise Killed

    for index in range(3):
        monkeypatch.setattr(files, "publish", counted if index < 2 else publish)
        monkeypatch.setattr("rstar_jax.files.objects.publish", counted if index < 2 else publish)
        try:
            evolve(settings, tmp_path, worker=Worker(index=index, total=3))
        except Killed:
            assert index < 2
    assert len(done) == 5
    for own in ("round_1/trees_1", "round_1/trees_2", "round_2/trees_1"):
        theirs = [tree.to_dict() for tree in read_trees(tmp_path / own)]
        for tree, other in zip((tree.to_dict() for tree in read_trees(run_dir / own)), theirs, strict=True):
            for name in ("value", "value_sum"):  # who searched other shards before may round otherwise
                np.testing.assert_allclose(tree["columns"].pop(name), other["columns"].pop(name), atol=1e-6)
            assert tree == other
    one, three = settled(run_dir), settled(tmp_path)
    assert [row | {"value": 0, "error": 0} for row in three] == [row | {"value": 0, "error": 0} for row in one]
    np.testing.assert_allclose([row["value"] for row in three], [row["value"] for row in one], atol=1e-4)


def test_a_training_by_command_knows_epochs_too(settings, run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    config = TrainingRun(policy=settings.rounds[-1].policy, ppm=settings.rounds[-1].ppm, mesh=settings.mesh)
    given = {
        "config": config,
        "run_dir": str(run_dir),
        "policy": None,
        "data": None,
        "coordinator": None,
        "process": None,
    }
    training_commands.train_policy(output=str(tmp_path / "policy"), **given)
    training_commands.train_ppm(output=str(tmp_path / "ppm"), **given)
    base, trained = models.load(run_dir / "round_0" / "policy"), models.load(tmp_path / "policy")
    assert not np.array_equal(base.parameters["embedding"], trained.parameters["embedding"])
    assert models.load_preference(tmp_path / "ppm").tokenizer == trained.tokenizer


def test_an_orm_and_a_pqm_are_trained_from_what_a_run_has(settings, run_dir, tmp_path):
    config = TrainingRun(ppm=dataclasses.replace(TRAINING, epochs=3), mesh=settings.mesh)
    given = {"config": config, "run_dir": str(run_dir), "policy": None, "data": None}
    found = {}
    for name in ("orm", "pqm"):
        train = getattr(training_commands, f"train_{name}")
        train(output=str(tmp_path / name), coordinator=None, process=None, **given)
        assert np.abs(models.load_preference(tmp_path / name).parameters["value"]).max() > 0
        found[name] = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert "batch_pair_accuracy" in found["orm"][0] and "batch_pair_accuracy" not in found["pqm"][0]
    assert found["pqm"][-1]["loss"] < found["pqm"][0]["loss"]


def test_a_dry_run_says_what_there_is_to_do(settings, run_dir, tmp_path, capsys):
    shared = {"config": settings, "redo": None, "phase": None, "worker": None, "dry_run": True}
    commands.evolve(run_dir=str(tmp_path / "new"), **shared)
    text = " ".join(capsys.readouterr().out.split())
    nodes = expansions(ROOMY)
    assert nodes == STEPS + STEPS / 2
    each = nodes * ROOMY.candidates * STEP_TOKENS
    assert f"1_search_1: 7 problems x 1 trees x ({STEPS} + 1 x {STEPS}/2 = {nodes:.0f} expansions)" in text
    assert f"{7 * each:,.0f}" in text and "3 of 3 shards" in text and "missing" in text
    assert not (tmp_path / "new").exists()
    commands.evolve(run_dir=str(run_dir), **shared)
    text = " ".join(capsys.readouterr().out.split())
    assert "all that is not done: 0 tokens" in text and "as 2_search_1 had" in text
    assert RunFolder(run_dir).status()[0][1] == "done"


def test_how_many_problems_a_source_has(settings, tmp_path):
    assert size_of(settings.problems) == 7 and size_of(settings.benchmarks[0].problems) == 12
    assert size_of(FileProblems(files=(str(tmp_path / "nothing.jsonl"),))) is None


def test_one_more_round_is_no_other_run(settings, run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    shutil.copytree(run_dir, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (run_dir / "done").iterdir()}
    evolve(dataclasses.replace(settings, rounds=(*settings.rounds, settings.rounds[1])), tmp_path / "run")
    after = {path.name: path.read_bytes() for path in (tmp_path / "run" / "done").iterdir()}
    assert before.items() <= after.items() and {"3_search_1.json", "3_policy.json"} <= after.keys() - before.keys()
