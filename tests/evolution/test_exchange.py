"""Checkpoints become round 0 of a run, and models of a run become checkpoints."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from rstar_jax import main, models
from rstar_jax.models import parameters
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests import checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    return checkpoints.write(tmp_path / "checkpoint")


def test_a_checkpoint_comes_in_and_goes_out(checkpoint, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    assert main.main(["import", f"--model={checkpoint}", f"--run_dir={run}", "--dtype=float32"]) == 0
    tokenizer = Tokenizer.load(run / "tokenizer")
    assert len(tokenizer) == 11 + len(markers.SPECIAL_TOKENS) - 1  # <|endoftext|> was there
    assert main.main(["export", f"--run_dir={run}", "--round=0", f"--output={out}"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run / "round_0" / "policy"), str(out)]
    before, after = models.load(str(checkpoint), dtype="float32"), models.load(str(out), dtype="float32")
    old, new = np.asarray(before.parameters["embedding"]), np.asarray(after.parameters["embedding"])
    np.testing.assert_array_equal(new[:11], old[:11])
    np.testing.assert_allclose(new[11:21], np.tile(old[:11].mean(0), (10, 1)), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before.parameters["layers"], after.parameters["layers"])
    assert Tokenizer.load(out).ids == tokenizer.ids
    assert load_file(out / "model.safetensors").keys() == load_file(checkpoint / "model.safetensors").keys()


def test_a_ppm_comes_in_and_goes_out(checkpoint, tmp_path):
    policy = models.load(str(checkpoint), dtype="float32")
    values = parameters.preference_from_policy(policy.config, policy.parameters, policy.mesh)
    values |= {"value": jax.numpy.arange(32.0), "value_scale": jax.numpy.asarray(5.0)}
    ppm = models.Preference(config=policy.config, parameters=values, mesh=policy.mesh, fields=policy.fields)
    models.save(ppm, checkpoint)
    run, out = tmp_path / "run", tmp_path / "out"
    assert main.main(["import", f"--model={checkpoint}", f"--run_dir={run}", "--kind=ppm", "--dtype=float32"]) == 0
    assert main.main(["export", f"--run_dir={run}", "--round=0", "--kind=ppm", f"--output={out}"]) == 0
    tokens = np.arange(10)[None]
    again = models.load_preference(str(out), dtype="float32")
    np.testing.assert_array_equal(again.scores(tokens), ppm.scores(tokens))
    assert float(again.parameters["value_scale"]) == 5.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "--model=nothing/there", "--run_dir=x"], "nothing/there: neither a folder nor a model"),
        (["export", "--run_dir=nothing", "--round=1", "--output=x"], "nothing/tokenizer/tokenizer.json: expected"),
    ],
)
def test_what_is_not_there_is_named(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
