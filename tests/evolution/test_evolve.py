"""The whole loop on a few problems: what it leaves behind, and that a killed run ends like an undisturbed one."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest
from transformers import PreTrainedTokenizerFast

from rstar_jax import files, models
from rstar_jax.decoding import DecodingConfig
from rstar_jax.evaluation import EqualTokens, EvaluationConfig, Greedy, Samples, Search, measurements
from rstar_jax.evolution import annotate, commands, train
from rstar_jax.evolution import evolve as evolve_module
from rstar_jax.evolution.config import Benchmark, EvolutionConfig, Pass, Round, Scratch
from rstar_jax.evolution.run import Run
from rstar_jax.evolution.run_folder import Phase, RunFolder
from rstar_jax.models import DecoderConfig
from rstar_jax.partitioning import MeshConfig
from rstar_jax.problems.procedural import ProceduralProblems
from rstar_jax.problems.stored import StoredProblems, write_problems
from rstar_jax.search import PairConfig, SchedulerConfig, SearchConfig, VoteConfig, read_trees
from rstar_jax.training import TrainingConfig
from rstar_jax.trajectory import markers
from tests.evolution.scripted import ScriptedWorld, numbers, read_rows
from tests.files import crash
from tests.search import scripted

SEARCH = SearchConfig(
    candidates=3,
    rollouts=4,
    max_depth=16,
    exploration=2.0,
    value_mode="terminal",
    max_consecutive_errors=1,
    max_prefix_tokens=192,
)
TRAINING = TrainingConfig(steps=4, batch=4, learning_rate=1e-3, buckets=(192,), checkpoint_every=2)


HELDOUT = ProceduralProblems(split="heldout", counts={"chain_sum": (3, 3, 3, 3)})
EXAMPLES = ProceduralProblems(split="bootstrap", counts={"chain_sum": (12, 3, 2, 2)}, worked=True, avoid=HELDOUT)
ROUND_1 = ProceduralProblems(split="round_1", counts={"chain_sum": (2, 3, 3, 0)}, avoid=EXAMPLES)
ROUND_2 = dataclasses.replace(ROUND_1, split="round_2", avoid=ROUND_1)


def config():
    """Two rounds; the second has two passes, of which the other searches what the first did not solve at once."""
    first = Round(
        passes=(Pass(search=SEARCH),), policy=TRAINING, ppm=TRAINING, pairs=PairConfig(), problems=ROUND_1, replay=0.3
    )
    augmented = dataclasses.replace(SEARCH, value_mode="ppm")
    passes = (Pass(search=augmented), Pass(search=augmented, only=("medium", "hard"), trees=2))
    return EvolutionConfig(
        base=Scratch(
            model=DecoderConfig(vocabulary_size=384, layers=1, embed=16, heads=2, kv_heads=1, head=8, mlp=16),
            training=TRAINING,
            examples=EXAMPLES,
            questions=(ROUND_1, ROUND_2),
        ),
        rounds=(first, dataclasses.replace(first, passes=passes, problems=ROUND_2)),
        benchmarks=(Benchmark(name="heldout", problems=HELDOUT),),
        control=True,
        overlap=False,
        decoding=DecodingConfig(
            max_prefix_tokens=192,
            max_step_tokens=8,
            max_block_tokens=8,
            page=8,
            pages=400,
            prefix_buckets=(192,),
            node_buckets=(8,),
            extend_buckets=(96,),
            score_rows=1,
        ),
        evaluation=EvaluationConfig(
            measurements=(
                Greedy(),
                Samples(n=4),
                Search(config=dataclasses.replace(SEARCH, value_mode="test"), trees=2),
                EqualTokens(),
            ),
            headline_levels=("2", "3", "4"),
        ),
        mesh=MeshConfig(data=1),
        shards=2,
        verifier_workers=1,
    )


def settled(run_dir):
    """The metrics of a run without what a clock had a say in."""
    rows = numbers(run_dir)
    return [row for row in rows if row["name"] != "phase_seconds" and not row["name"].startswith("speed_")]


def left_behind(run_dir):
    """Trees and data of all rounds."""
    passes = ("round_1/trees_1", "round_2/trees_1", "round_2/trees_2")
    trees = [[tree.to_dict() for tree in read_trees(run_dir / own)] for own in passes]
    rows = [read_rows(run_dir / f"round_{n}" / kind) for n in (1, 2) for kind in ("policy_data", "preference_data")]
    return trees, rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
        page = evolve_module.evolve(config(), run_dir)
    assert page == run_dir / "report" / "index.html" and page.exists()
    return run_dir


def test_the_majority_at_equal_tokens_has_the_samples_that_the_search_could_pay(undisturbed):
    rows = numbers(undisturbed)
    last = {row["name"]: row["value"] for row in rows if row["round"] == 2 and "level" not in row}
    costs = {row["name"]: row["tokens"] for row in rows if "tokens" in row and row["round"] == 2 and "level" not in row}
    assert costs["search_accuracy"] == last["search_tokens"]
    assert costs["majority_accuracy"] == costs["best_of_n_accuracy"] == 4 * last["sample_tokens"]
    assert costs["equal_tokens_majority_accuracy"] == pytest.approx(costs["search_accuracy"], rel=0.2)
    assert last["search_tokens"] > last["sample_tokens"] > 0
    assert last["equal_tokens_samples"] == round(last["search_tokens"] / last["sample_tokens"])
    assert 0 <= last["equal_tokens_majority_accuracy"] <= 1


def test_the_loop_says_how_busy_it_was(undisturbed):
    rows = numbers(undisturbed)
    speed = {row["name"]: row["value"] for row in rows if row["name"].startswith("speed_") and row["round"] == 2}
    assert speed.keys() == {
        "speed_expansions_per_second",
        "speed_accelerator_busy",
        "speed_verifier_busy",
        "speed_lane_utilisation",
        "speed_computed_per_unique_token",
        "speed_pool_occupancy",
        "speed_compiled_programs",
        "speed_unverified_programs",
        "speed_undecided_answers",
        "speed_out_of_time_trees",
    }
    assert speed["speed_unverified_programs"] == speed["speed_undecided_answers"] == 0
    assert speed["speed_out_of_time_trees"] == 0
    assert speed["speed_expansions_per_second"] > 0 and 0 < speed["speed_pool_occupancy"] < 1
    assert 0 < speed["speed_accelerator_busy"] < 1 and 0 < speed["speed_verifier_busy"] < 2


def test_the_loop_leaves_all_its_numbers(undisturbed):
    rows = settled(undisturbed)
    names = {row["name"] for row in rows if row["round"] == 2}
    assert names >= {
        "greedy_accuracy",
        "control_greedy_accuracy",
        "search_accuracy",
        "majority_accuracy",
        "best_of_n_accuracy",
        "pass_at_4",
        "ppm_pair_accuracy",
        "false_positive_share",
        "solved_share",
    }
    assert all({"round", "name", "value", "split"} <= set(row) for row in rows)
    greedy = [row for row in rows if row["name"] == "greedy_accuracy" and row["round"] == 2 and "level" not in row]
    # The scripted policy is right when it is not sampled. All problems, then those of the headline.
    assert [(row["value"], row["error"], row["n"], row.get("levels")) for row in greedy] == [
        (1.0, 0.0, 12, None),
        (1.0, 0.0, 9, "2, 3, 4"),
    ]
    trees, (trajectories, pairs, *_) = left_behind(undisturbed)
    assert len(trees[0]) == 8 and trajectories and pairs
    assert {row["kind"] for row in pairs} == {"step", "trajectory"}
    gains = {row["name"]: row for row in rows if " - " in row["name"]}
    others = {"greedy", "majority", "best_of_n", "equal_tokens_majority"}
    assert gains.keys() == {f"search - {other}" for other in others}
    (searched,) = [row for row in rows if row["name"] == "search_accuracy" and "level" not in row]
    curve = {(row["name"], row["trajectories"]): row["value"] for row in rows if row["name"].startswith("scaling_")}
    assert gains["search - greedy"]["value"] == pytest.approx(searched["value"] - 1)
    assert gains["search - greedy"]["error"] == pytest.approx(searched["error"]) and searched["n"] == 9
    assert len(curve) == 5 * 2 and curve["scaling_weighted_majority", 2] == searched["value"]


def test_heldout_trees_carry_no_answer(undisturbed):
    trees = list(read_trees(undisturbed / "round_2" / "heldout_trees"))
    assert trees and {tree.problem.answers for tree in trees} == {()}
    assert len({tree.key for tree in trees}) == len(trees) == 2 * len({tree.problem.id for tree in trees})


def test_search_and_evaluate_by_command(undisturbed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    problems = [
        problem for problem in StoredProblems(undisturbed / "problems/benchmark_heldout").read() if problem.level == "2"
    ]
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps({"question": p.question, "answer": p.answers[0]}) + "\n" for p in problems))
    greedy, samples, search, equal = config().evaluation.measurements
    search = dataclasses.replace(search, vote=VoteConfig(rule="majority"))
    voting = dataclasses.replace(config().evaluation, measurements=(greedy, samples, search, equal))
    settings = dataclasses.replace(config(), evaluation=voting)
    common = {"config": settings, "run_dir": str(undisturbed), "policy": None, "ppm": None}
    searched, search_trees, found = [], measurements.search_trees, tmp_path / "found"
    monkeypatch.setattr(
        measurements, "search_trees", lambda own, **rest: searched.append(own) or search_trees(own, **rest)
    )
    commands.search(problems=str(file), output=str(found), **common)
    assert [problem.answers for own in searched for problem in own] == [()] * len(problems), "no answer is in reach"
    text = (found / "answers.jsonl").read_text()
    answers, trees = [json.loads(line) for line in text.splitlines()], list(read_trees(found / "trees"))
    assert [row["question"] for row in answers] == [problem.question for problem in problems]
    for row in answers:
        own = [tree for tree in trees if tree.problem.id == row["id"]]
        assert len(own) == 2 and row["answer"] in {answer for tree in own for answer in tree.answer}
    # A search that was cut off goes on with the shard that is missing, and refuses another one's folder.
    sorted((found / "trees").glob("*.done"))[1].unlink()
    again, searched[:] = searched[1], []
    commands.search(problems=str(file), output=str(found), **common)
    assert searched == [again] and (found / "answers.jsonl").read_text() == text
    with pytest.raises(ValueError, match="made with another configuration.*Give another --output"):
        commands.search(problems=None, output=str(found), **common)
    measured = tmp_path / "measured"
    commands.evaluate(problems=str(file), output=str(measured), limit=None, **common)
    printed = capsys.readouterr().out
    rows = json.loads((measured / "table.json").read_text())["rows"]
    values = {(row["name"], row.get("trajectories")): row["value"] for row in rows if "level" not in row}
    right = [row["answer"] in problem.answers for row, problem in zip(answers, problems, strict=True)]
    assert values["search_accuracy", None] == values["scaling_majority", 2] == sum(right) / len(right)
    assert values["scaling_pass", 2] >= values["scaling_best", 2] and ("best_of_n_accuracy", None) in values
    assert "accuracy by selection rule" in printed and "search - equal_tokens_majority" in printed
    # What was lost is measured again, what is there is not, and the table is the same.
    before, searched[:] = (measured / "table.json").read_bytes(), []
    (measured / "table.json").unlink()
    (measured / "rows" / "equal_tokens-00000-of-00001.jsonl").unlink()
    commands.evaluate(problems=str(file), output=str(measured), limit=None, **common)
    assert not searched and (measured / "table.json").read_bytes() == before
    with pytest.raises(ValueError, match="made with another configuration.*Give another --output"):
        commands.evaluate(problems=str(file), output=str(measured), limit="1", **common)
    with pytest.raises(ValueError, match="--limit=0: expected a number of problems"):
        commands.evaluate(problems=str(file), output=None, limit="0", **common)
    commands.evaluate(problems=str(file), output=None, limit="1", **common)
    assert "1 problems" in capsys.readouterr().out


def test_its_models_are_folders_that_transformers_reads(undisturbed):
    folder = undisturbed / "round_2" / "policy"
    ours, theirs = models.load(folder).tokenizer, PreTrainedTokenizerFast.from_pretrained(folder)
    text = "What is 12 - 3?<code>a = 12 - 3<end_of_step>print(a, a - (12 - 3))<end_of_code>"
    assert tuple(theirs(text, add_special_tokens=False)["input_ids"]) == ours.encode(text)
    assert theirs.eos_token == markers.END_OF_TEXT
    assert models.load_preference(undisturbed / "round_2" / "ppm").tokenizer == ours


def test_a_round_made_again_is_the_same_and_runtime_settings_make_no_other_run(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    other = dataclasses.replace(config(), verifier_workers=2, scheduling=SchedulerConfig(in_flight=3, patience=None))
    evolve_module.evolve(other, run, redo="2_select")
    assert settled(run) == settled(undisturbed) and left_behind(run) == left_behind(undisturbed)
    faster = dataclasses.replace(TRAINING, learning_rate=2e-3)
    changed = dataclasses.replace(
        config(), rounds=(config().rounds[0], dataclasses.replace(config().rounds[1], ppm=faster))
    )
    with pytest.raises(ValueError, match="2_ppm was made with another configuration.*learning_rate = 0.002"):
        evolve_module.evolve(changed, run)


class Killed(Exception):
    pass


PHASES = (
    "0_base",
    "1_search_1",
    "1_select",
    "1_policy",
    "2_search_2",
    "2_ppm",
    "2_control",
    "2_evaluate_heldout_search",
)


def test_a_run_cut_off_in_every_phase_ends_the_same(undisturbed, tmp_path, monkeypatch):
    """Cuts the run off after the work of each of some phases, before its marker stands: the worst moment."""
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    whole = evolve_module.plan
    for cut in PHASES:

        def plan(*arguments, cut=cut):
            def dying(work):
                work()
                raise Killed

            return [
                dataclasses.replace(phase, work=functools.partial(dying, phase.work)) if phase.name == cut else phase
                for phase in whole(*arguments)
            ]

        monkeypatch.setattr(evolve_module, "plan", plan)
        with pytest.raises(Killed):
            evolve_module.evolve(config(), tmp_path)
    monkeypatch.setattr(evolve_module, "plan", whole)
    evolve_module.evolve(config(), tmp_path)
    assert settled(tmp_path) == settled(undisturbed)
    assert left_behind(tmp_path) == left_behind(undisturbed)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_search_cut_off_repeats_no_shard_that_is_done(tmp_path, monkeypatch, overlap):
    settings = dataclasses.replace(config(), shards=3, overlap=overlap, scheduling=SchedulerConfig(in_flight=2))
    run = Run(config=settings, folder=RunFolder(tmp_path))
    write_problems(tmp_path / "problems/round_1", scripted.problems(7), 3)
    searched, whole = [], annotate.search

    class Engine(scripted.Sampler):
        def begin(self):
            pass

    def search(problems, *, verifier, sampler, stats, on_progress, **_):
        def asked():
            for problem in problems:
                searched.append(problem.id)
                yield problem
                if len(searched) == 6:
                    raise Killed

        grader, settings = scripted.Grader(), scripted.CONFIG
        return whole(asked(), sampler=sampler, verifier=verifier, grader=grader, config=settings, stats=stats)

    monkeypatch.setattr(annotate, "search", search)
    monkeypatch.setattr(annotate.SearchedPass, "_engine", lambda self: Engine())
    monkeypatch.setattr(annotate._Speed, "write", lambda self: None)
    run.world = types.SimpleNamespace(
        verifier=types.SimpleNamespace(workers=1, submit=scripted.Verifier().submit), grader=None
    )
    own = annotate.SearchedPass(run, 1, 1)
    phase = Phase(
        name="1_search_1", round=1, settings={}, inputs=(), outputs=(), work=lambda: None, shards=own.shards()
    )
    with pytest.raises(Killed):
        run.folder.run([phase])
    missing = run.folder.missing_shards(own.shards())
    assert overlap or missing == [2]
    before, searched[:] = len(searched), [None] * 6  # from here on nobody is killed
    run.folder.run([phase])
    shards = [[f"sum_{i}" for i in shard] for shard in ((0, 3, 6), (1, 4), (2, 5))]
    assert before == 6 and searched[6:] == [name for shard in missing for name in shards[shard]]
    assert {tree.problem.id for tree in read_trees(tmp_path / "round_1" / "trees_1")} == {f"sum_{i}" for i in range(7)}


@pytest.mark.slow
def test_kill_minus_nine(tmp_path):
    """SIGKILL at moments spread over a run of the command itself, until it ends; against a run left alone."""
    script = (
        "import sys; from tests.evolution.test_evolve import config; from rstar_jax.evolution.evolve import evolve;"
        "evolve(config(), sys.argv[1])"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"), "PYTHONPATH": root}

    def start(run_dir):
        return subprocess.Popen([sys.executable, "-c", script, str(run_dir)], env=environment, start_new_session=True)

    assert start(tmp_path / "alone").wait(timeout=600) == 0
    for seconds in range(8, 40, 4):
        process = start(tmp_path / "killed")
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            break
    assert start(tmp_path / "killed").wait(timeout=600) == 0
    assert settled(tmp_path / "killed") == settled(tmp_path / "alone")
    assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "alone")


def test_what_is_left_of_removed_checkpoints_is_never_gone_on_from(folder, monkeypatch):
    """A kill while the checkpoints of a finished training are removed, at whatever file; so does --redo remove them."""
    run = Run(config=config(), folder=RunFolder(folder))
    monkeypatch.setattr(models, "save", lambda model, path: None)
    training = run.folder.round(1) / "policy_training"
    whole = [
        "_CHECKPOINT_METADATA",
        "commit_success.txt",
        "optimizer/d/0",
        "parameters/d/0",
        "parameters/manifest.ocdbt",
    ]
    left = set()

    def before():
        for name in whole:
            files.publish(training / "2" / name, "{}")

    def after():
        there = [name for name in whole if files.exists(training / "2" / name)]
        left.add(len(there))
        assert there == whole or "commit_success.txt" not in there

    crash.everywhere(lambda: train._keep(run, 1, "policy", None), "://" in str(folder), before, after)
    assert files.names(run.folder.round(1)) == [] and left >= {0, 5}
