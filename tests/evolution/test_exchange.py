"""Checkpoints become the base of a run; a model is named by its folder."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from rstar_jax import main, models
from rstar_jax.evolution import commands
from rstar_jax.evolution.evolve import evolve
from rstar_jax.evolution.exchange import import_model
from rstar_jax.partitioning import make_mesh
from rstar_jax.problems import procedural
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests import checkpoints
from tests.evolution.scripted import ScriptedWorld
from tests.evolution.test_evolve import config


@pytest.fixture
def checkpoint(tmp_path):
    return checkpoints.write(tmp_path / "checkpoint")


def test_a_checkpoint_becomes_the_base_of_a_run(checkpoint, tmp_path, capsys):
    run = tmp_path / "run"
    assert main.main(["import", f"--model={checkpoint}", f"--run_dir={run}", "--dtype=float32"]) == 0
    base = run / "round_0" / "policy"
    assert capsys.readouterr().out.splitlines() == [str(base)]
    before, after = models.load(checkpoint, dtype="float32"), models.load(base)
    assert len(after.tokenizer) == 11 + len(markers.SPECIAL_TOKENS) - 1  # <|endoftext|> was there
    assert after.config == before.config and after.tokenizer.knows_markers
    old, new = np.asarray(before.parameters["embedding"]), np.asarray(after.parameters["embedding"])
    np.testing.assert_array_equal(new[:11], old[:11])
    np.testing.assert_allclose(new[11:21], np.tile(old[:11].mean(0), (10, 1)), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before.parameters["layers"], after.parameters["layers"])
    assert load_file(base / "model.safetensors").keys() == load_file(checkpoint / "model.safetensors").keys()
    for kind in ("policy", "policy"):
        assert main.main(["import", f"--model={checkpoint}", f"--run_dir={run}", f"--kind={kind}"]) == 2
        assert f"has a {kind} already" in capsys.readouterr().err


def test_a_ppm_becomes_the_first_of_a_run(checkpoint, tmp_path, capsys):
    ppm = models.preference_from_policy(models.load(checkpoint, dtype="float32"))
    ppm.parameters.update(value=jax.numpy.arange(32.0), value_scale=jax.numpy.asarray(5.0))
    models.save(ppm, checkpoint)
    run = tmp_path / "run"
    assert main.main(["import", f"--model={checkpoint}", f"--run_dir={run}", "--kind=ppm"]) == 0
    tokens = np.arange(10)[None]
    again = models.load_preference(run / "round_0" / "ppm")
    np.testing.assert_array_equal(again.scores(tokens), ppm.scores(tokens))
    assert float(again.parameters["value_scale"]) == 5.0
    assert main.main(["import", f"--model={checkpoint}", f"--run_dir={run}", "--kind=ppm"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "--model=nothing/there", "--run_dir=x"], "nothing/there: neither a folder nor a model"),
        (["evaluate", "--run_dir=nothing", "--problems=p.jsonl"], "--run_dir=nothing: no round there has a policy"),
        (["evaluate", "--policy=nothing/there", "--problems=p.jsonl"], "nothing/there: neither a folder nor a model"),
        (["train_ppm", "--policy=policy", "--output=x"], "policy: its tokenizer does not know the step markers"),
    ],
)
def test_what_is_not_there_is_named(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoints.write(tmp_path / "policy")
    (tmp_path / "p.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x" / "round_0").exists()


def test_a_run_from_an_imported_base_goes_all_the_way(tmp_path, monkeypatch, capsys):
    """import -> evolve -> evaluate, as a user would; the base is wider than the model of gin, and stays as it is."""
    monkeypatch.setattr("rstar_jax.evolution.world.World", ScriptedWorld)
    whole = config()
    own = whole.rounds[0]
    room = {name: dataclasses.replace(getattr(own, name), buckets=(512,)) for name in ("policy", "ppm")}
    settings = dataclasses.replace(whole, rounds=(dataclasses.replace(own, **room),))
    problems = procedural.generate("chain_sum", 1, 30, split="corpus", seed=0)
    tokenizer = Tokenizer.train([procedural.worked_example(problem) for problem in problems], 300)
    decoder = dataclasses.replace(whole.base.model, embed=24, rope_theta=1e6)
    models.save(models.fresh(decoder, make_mesh(whole.mesh), tokenizer, seed=5), tmp_path / "checkpoint")
    run = tmp_path / "run"
    import_model(config=settings, model=str(tmp_path / "checkpoint"), run_dir=str(run), kind="policy", dtype=None)
    base = {path.name: path.read_bytes() for path in (run / "round_0" / "policy").iterdir()}
    evolve(settings, run)
    assert {path.name: path.read_bytes() for path in (run / "round_0" / "policy").iterdir()} == base
    with pytest.raises(ValueError, match="--redo=0_base: the base of .* was imported"):
        evolve(settings, run, redo="0_base")
    assert {path.name: path.read_bytes() for path in (run / "round_0" / "policy").iterdir()} == base
    for kind in ("policy", "control"):
        assert models.load(run / "round_1" / kind).config == dataclasses.replace(
            decoder, vocabulary_size=len(tokenizer)
        )
    (problem,) = procedural.generate("chain_sum", 1, 1, split="other", seed=0)
    row = {"question": problem.question, "answer": problem.answers[0]}
    (tmp_path / "problems.jsonl").write_text(json.dumps(row) + "\n")
    named = {"policy": str(run / "round_1" / "policy"), "ppm": str(run / "round_1" / "ppm")}
    asked = {"problems": str(tmp_path / "problems.jsonl"), "output": str(tmp_path / "measured"), "limit": None}
    capsys.readouterr()
    commands.evaluate(config=settings, run_dir="nowhere", **named, **asked)
    assert "search_accuracy" in capsys.readouterr().out
    rows = json.loads((tmp_path / "measured" / "table.json").read_text())["rows"]
    assert {row["name"]: row["value"] for row in rows}["greedy_accuracy"] == 1.0
