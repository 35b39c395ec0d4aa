"""Hugging Face folders: the same logits as transformers, the same bytes back, clear errors for what cannot be read."""

import importlib.util
import json
import pathlib
import pickle
import time
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gin
from rstar_jax import configuration
from rstar_jax.models import Decoder, DecoderConfig, hub, layouts, parameters, safetensors_folder
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests.files import crash
from tests.models import tiny

GIN = pathlib.Path(__file__).resolve().parents[2] / "gin"


def deviation(ours, theirs, mask):
    """The largest difference at real tokens, relative to the scale of the logits."""
    return np.abs(ours - theirs)[mask].max() / np.abs(theirs[mask]).max()


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_logits_are_those_of_transformers(layout, tmp_path):
    tiny.write(tmp_path, layout)
    tokens, mask = tiny.batch()
    ours = np.asarray(hub.load(str(tmp_path), dtype="float32").logits(tokens, mask=mask))
    golden = np.load(tiny.GOLDENS)[layout]
    assert deviation(ours[:, ::3], golden, mask[:, ::3]) <= 1e-4
    if importlib.util.find_spec("torch"):
        assert deviation(ours, tiny.transformers_logits(tmp_path, tokens, mask), mask) <= 1e-4


def test_positions_may_be_given(tmp_path):
    tiny.write(tmp_path, "llama_tied")
    policy = hub.load(str(tmp_path), dtype="float32")
    tokens, _ = tiny.batch()
    shifted = np.broadcast_to(np.arange(24) + 40, tokens.shape)
    np.testing.assert_allclose(policy.logits(tokens, shifted), policy.logits(tokens), atol=2e-4)  # rotary: relative
    spread = np.broadcast_to(np.arange(24) * 2, tokens.shape)
    assert np.abs(np.asarray(policy.logits(tokens, spread)) - policy.logits(tokens)).max() > 0.1


@pytest.mark.parametrize("layout", ["qwen2_untied", "llama_tied", "phi3"])
def test_a_round_trip_keeps_every_bit(layout, tmp_path):
    tiny.write(tmp_path / "a", layout, ml_dtypes.bfloat16)
    policy = hub.load(str(tmp_path / "a"))
    hub.save(policy, tmp_path / "b", shard_bytes=20_000)
    before = load_file(tmp_path / "a" / "model.safetensors")
    shards = sorted((tmp_path / "b").glob("model-*.safetensors"))
    assert len(shards) > 1 and all(path.stat().st_size < 24_000 for path in shards)
    after = {name: value for path in shards for name, value in load_file(path).items()}
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype and value.tobytes() == after[name].tobytes(), name
    again = hub.load(str(tmp_path / "b"))
    jax.tree.map(np.testing.assert_array_equal, policy.parameters, again.parameters)


@pytest.mark.parametrize("layout", ["qwen2_untied", "phi3"])
def test_bfloat16_is_read_as_float32_without_a_bit_lost(layout, tmp_path):
    """Whatever it holds: infinities, what is no number, and numbers below the normal ones too."""
    tiny.write(tmp_path, layout, ml_dtypes.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    name = "model.embed_tokens.weight"
    stored[name].reshape(-1).view(np.uint16)[:4] = 0x7F80, 0xFFC1, 0x0001, 0x8000
    save_file(stored, tmp_path / "model.safetensors")
    narrow, wide = hub.load(str(tmp_path)), hub.load(str(tmp_path), dtype="float32")

    def check(own, wider):
        np.testing.assert_array_equal(
            np.asarray(wider).view(np.uint32), np.asarray(own).view(np.uint16) << np.uint32(16)
        )

    jax.tree.map(check, narrow.parameters, wide.parameters)
    assert np.asarray(narrow.parameters["embedding"]).tobytes() == stored[name].tobytes()


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_transformers_reads_what_is_written(tmp_path):
    tiny.write(tmp_path / "a", "phi3")
    tokens, mask = tiny.batch()
    policy = hub.load(str(tmp_path / "a"), dtype="float32")
    hub.save(policy, tmp_path / "b", shard_bytes=30_000)
    theirs = tiny.transformers_logits(tmp_path / "b", tokens, mask)
    assert deviation(np.asarray(policy.logits(tokens, mask=mask)), theirs, mask) <= 1e-4


@pytest.mark.parametrize("file", ["data.gin", "fsdp.gin", "fsdp_tensor.gin", "tensor.gin"])
def test_every_parameter_lies_as_the_mesh_specifies(file, tmp_path):
    tiny.write(tmp_path, "qwen2_untied")
    configuration.parse([f"meshes/{file}"], [])
    config = gin.get_configurable(MeshConfig)()
    mesh = make_mesh(config)
    assert mesh.size == 8
    policy = hub.load(str(tmp_path), mesh, "float32")
    whole = hub.load(str(tmp_path), make_mesh(MeshConfig(data=1)), "float32")
    split = mesh.shape["fsdp"] * mesh.shape["tensor"]

    def check(path, ours, one):
        np.testing.assert_array_equal(ours, one)
        if not path[-1].key.endswith(("scale", "bias")):  # vectors are small
            assert ours.addressable_shards[0].data.size * split == ours.size, f"{path} is replicated"

    jax.tree_util.tree_map_with_path(check, policy.parameters, whole.parameters)


@pytest.mark.parametrize(
    ("file", "published"),
    [
        ("qwen2.5_math_1.5b", 1_543_714_304),
        ("qwen2.5_math_7b", 7_615_616_512),
        ("qwen2_math_7b", 7_615_616_512),
        ("phi3_mini", 3_821_079_552),
        ("smollm2_135m", 134_515_008),
        ("qwen2.5_coder_0.5b", 494_032_768),
        ("qwen2.5_coder_1.5b", 1_543_714_304),
    ],
)
def test_gin_models_have_as_many_parameters_as_was_published(file, published):
    configuration.parse([f"models/{file}.gin"], [])
    config = gin.get_configurable(DecoderConfig)()
    shapes = parameters.abstract(Decoder, config, make_mesh(MeshConfig(data=1)))
    assert parameters.count(shapes) == published
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"bfloat16"}


def _edit(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def _tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


FAULTS = {
    "missing": (lambda f: _tensors(f, lambda t: t.pop("model.norm.weight")), "tensor model.norm.weight is missing"),
    "extra": (
        lambda f: _tensors(f, lambda t: t.update({"model.extra": np.zeros(2, np.float32)})),
        "tensor model.extra has no place",
    ),
    "shape": (
        lambda f: _tensors(f, lambda t: t.update({"lm_head.weight": np.zeros((3, 32), np.float32)})),
        r"tensor lm_head.weight has shape \(3, 32\), config.json makes it \(64, 32\)",
    ),
    "truncated": (_truncate, "model.safetensors: truncated or corrupt"),
    "architecture": (lambda f: _edit(f, model_type="mamba"), "config.json: model_type is 'mamba'"),
    "longrope": (lambda f: _edit(f, rope_scaling={"type": "longrope"}), "rope_scaling is of type 'longrope'"),
    "activation": (lambda f: _edit(f, hidden_act="gelu"), "hidden_act is 'gelu', expected 'silu'"),
    "key": (lambda f: _edit(f, vocab_size=None), "vocab_size"),
    "json": (lambda f: (f / "config.json").write_text("{"), "config.json: expected JSON"),
    "no file": (lambda f: (f / "model.safetensors").unlink(), "expected model.safetensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_named(fault, tmp_path):
    tiny.write(tmp_path, "qwen2_untied")
    damage, message = FAULTS[fault]
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        hub.load(str(tmp_path))


def test_new_tokens_start_at_the_mean_in_padded_rows_or_in_new_ones(tmp_path):
    tiny.write(tmp_path, "qwen2_untied")
    policy = hub.load(str(tmp_path), make_mesh(MeshConfig(data=1, tensor=2)), "float32")
    before = np.asarray(policy.parameters["embedding"])
    padded = hub.add_tokens(policy, 60, 4)
    assert padded.config.vocabulary_size == 64
    for table in ("embedding", "head"):
        old, new = np.asarray(policy.parameters[table]), np.asarray(padded.parameters[table])
        np.testing.assert_array_equal(new[:60], old[:60])
        np.testing.assert_allclose(new[60:], np.tile(old[:60].mean(0), (4, 1)), rtol=1e-5, atol=1e-6)
    grown = hub.add_tokens(policy, 64, 11)
    assert grown.config.vocabulary_size == 128 and grown.parameters["head"].shape == (128, 32)
    np.testing.assert_array_equal(np.asarray(grown.parameters["embedding"])[:64], before)
    hub.save(grown, tmp_path / "grown")
    assert hub.load(str(tmp_path / "grown")).config.vocabulary_size == 128


def test_a_ppm_goes_out_and_comes_back_in_the_released_format(tmp_path):
    tiny.write(tmp_path / "policy", "qwen2_tied")
    policy = hub.load(str(tmp_path / "policy"), dtype="float32")
    values = parameters.preference_from_policy(policy.config, policy.parameters, policy.mesh)
    tokens, mask = tiny.batch()
    ppm = hub.Preference(config=policy.config, parameters=values, mesh=policy.mesh, fields=policy.fields)
    np.testing.assert_array_equal(ppm.scores(tokens, mask), np.zeros(4))  # it begins by preferring nothing
    head = np.random.default_rng(0).normal(size=32).astype(np.float32)
    ppm.parameters["value"], ppm.parameters["bias"] = jax.numpy.asarray(head), jax.numpy.asarray(0.25)
    ppm.parameters["value_scale"] = jax.numpy.asarray(2.5)
    hub.save(ppm, tmp_path / "ppm")
    again = hub.load_preference(str(tmp_path / "ppm"), dtype="float32", value_scale=7.0)
    assert float(again.parameters["value_scale"]) == 2.5  # what the folder says
    np.testing.assert_array_equal(again.scores(tokens, mask), ppm.scores(tokens, mask))
    assert len(set(np.asarray(ppm.scores(tokens, mask)).tolist())) == 4
    if importlib.util.find_spec("torch"):
        import torch

        stored = torch.load(tmp_path / "ppm" / "value_head.bin", weights_only=True)
        np.testing.assert_array_equal(stored["v_head.summary.weight"].numpy(), head[None])
        torch.save({name: value.clone() for name, value in stored.items()}, tmp_path / "ppm" / "value_head.bin")
        theirs = hub.load_preference(str(tmp_path / "ppm"), dtype="float32")
        np.testing.assert_array_equal(theirs.scores(tokens, mask), ppm.scores(tokens, mask))


def test_a_model_is_the_same_bytes_whenever_it_is_written(tmp_path, monkeypatch):
    tiny.write(tmp_path / "policy", "qwen2_untied")
    ppm = hub.preference_from_policy(hub.load(tmp_path / "policy"), 5.0)
    written = []
    for day in (1.0e9, 1.7e9):
        monkeypatch.setattr(time, "time", lambda day=day: day)
        hub.save(ppm, tmp_path / "ppm")
        written.append({path.name: path.read_bytes() for path in (tmp_path / "ppm").iterdir()})
    assert written[0] == written[1] and "value_head.bin" in written[0]


def test_the_scale_of_a_ppm_whose_folder_has_none_is_the_callers(tmp_path):
    tiny.write(tmp_path / "policy", "qwen2_tied")
    policy = hub.load(str(tmp_path / "policy"), dtype="float32")
    values = parameters.preference_from_policy(policy.config, policy.parameters, policy.mesh, 3.0)
    ppm = hub.Preference(config=policy.config, parameters=values, mesh=policy.mesh, fields=policy.fields)
    hub.save(ppm, tmp_path / "ppm")
    file = tmp_path / "ppm" / "config.json"
    fields = json.loads(file.read_text())
    for scale, message in ((0, "found 0"), ("5", "found '5'"), (True, "found True"), (float("nan"), "found nan")):
        file.write_text(json.dumps(fields | {"value_scale": scale}))
        with pytest.raises(ValueError, match=f"config.json: value_scale: expected a number above 0, {message}"):
            hub.load_preference(str(tmp_path / "ppm"))
    file.write_text(json.dumps({name: value for name, value in fields.items() if name != "value_scale"}))
    assert float(hub.load_preference(str(tmp_path / "ppm"), value_scale=5.0).parameters["value_scale"]) == 5.0
    hub.save(ppm, tmp_path / "ppm")
    hub.save(hub.load(str(tmp_path / "ppm"), dtype="float32"), tmp_path / "body")
    assert "value_scale" not in json.loads((tmp_path / "body" / "config.json").read_text())


def test_a_model_says_all_of_itself_and_is_none_while_it_is_written(tmp_path, monkeypatch):
    """Config, parameters, their dtype and the tokenizer come back; a save that is cut off anywhere leaves no model."""
    tokenizer = Tokenizer.train(["a = 1 + 2", "print(a)"] * 9, 300)
    config = DecoderConfig(
        vocabulary_size=300, layers=2, embed=16, heads=2, kv_heads=1, head=8, mlp=16, rope_theta=1e6, norm_epsilon=1e-5
    )
    model = hub.fresh(config, make_mesh(MeshConfig(data=1)), tokenizer, 0)
    ppm = hub.preference_from_policy(model, 3.0)
    hub.save(ppm, tmp_path / "ppm")
    again = hub.load_preference(tmp_path / "ppm", model.mesh)
    assert (again.config, again.tokenizer) == (model.config, tokenizer) and again.tokenizer.knows_markers
    jax.tree.map(np.testing.assert_array_equal, again.parameters, ppm.parameters)
    hub.save(model, tmp_path / "ppm")
    assert hub.is_model(tmp_path / "ppm") and not (tmp_path / "ppm" / "value_head.bin").exists()
    for name in ("write_tensors", "save"):
        with monkeypatch.context() as patch:
            owner = hub.transfer if name == "write_tensors" else Tokenizer
            patch.setattr(owner, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                hub.save(model, tmp_path / "ppm")
        with pytest.raises(FileNotFoundError, match="config.json: expected the configuration"):
            hub.load(tmp_path / "ppm")


def test_killed_at_any_moment_a_model_written_over_another_is_the_old_the_new_or_none(folder):
    """Of other parameters, in other files, with a head or without."""
    tokenizer = Tokenizer.train(["a = 1 + 2", "print(a)"] * 9, 300)
    config = DecoderConfig(vocabulary_size=300, layers=1, embed=16, heads=2, kv_heads=1, head=8, mlp=16)
    mesh, path, seen = make_mesh(MeshConfig(data=1)), folder / "model", []
    old = hub.fresh(config, mesh, tokenizer, 0)
    new = hub.preference_from_policy(hub.fresh(config, mesh, tokenizer, 1), 3.0)

    def after():
        if not hub.is_model(path):
            return seen.append(None)
        found = hub.load(path, mesh)
        whole = old if np.array_equal(found.parameters["embedding"], old.parameters["embedding"]) else new
        jax.tree.map(np.testing.assert_array_equal, found.parameters, getattr(whole, "body", whole).parameters)
        assert found.tokenizer == tokenizer
        if whole is new:
            head = hub.load_preference(path, mesh).parameters
            jax.tree.map(np.testing.assert_array_equal, head, new.parameters)
        seen.append(whole)

    before, job = (lambda model, size=size: hub.save(model, path, shard_bytes=size) for size in (20_000, 10_000))
    points = crash.everywhere(lambda: job(new), "://" in str(folder), lambda: before(old), after)
    assert points > 10 and [own for own in (old, None, new) if any(own is one for one in seen)] == [old, None, new]


def test_a_head_that_would_run_code_is_refused(tmp_path):
    tiny.write(tmp_path, "qwen2_tied")
    with zipfile.ZipFile(tmp_path / "value_head.bin", "w") as archive:
        archive.writestr("value_head/data.pkl", pickle.dumps(print))
    with pytest.raises(ValueError, match="value_head.bin: expected a dict of float tensors.*not allowed"):
        hub.load_preference(str(tmp_path))


FIELDS = {
    "model_type": "qwen2", "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}}, "rope_theta", 7.0),
        ({"rope_parameters": {"full_attention": {"rope_theta": 9.0, "rope_type": "default"}}}, "rope_theta", 9.0),
        ({"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 4}, "window", None),
        ({"sliding_window": 5, "use_sliding_window": True}, "window", None),
        ({"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 0}, "window", 5),
        ({"sliding_window": 5, "use_sliding_window": True, "layer_types": ["full_attention"] * 4}, "window", None),
        ({"sliding_window": 5, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 4}, "window", 5),
        ({"model_type": "phi3", "sliding_window": 5}, "window", 5),
        ({"model_type": "phi3"}, "norm_epsilon", 1e-5),
        ({}, "norm_epsilon", 1e-6),
    ],
)
def test_config_json_as_the_families_mean_it(changes, name, value):
    config = layouts.read_config(FIELDS | changes, dtype="float32", parameter_dtype="float32")[1]
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"a": {"rope_theta": 1.0}, "b": {"rope_theta": 2.0}}}, "differ between types of layers"),
        ({"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 2}, "some layers only"),
    ],
)
def test_config_json_of_what_is_not_implemented_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        layouts.read_config(FIELDS | changes, dtype="float32", parameter_dtype="float32")


@pytest.mark.parametrize("dtype", ["int8", "float16", "bf16"])
def test_a_dtype_that_models_have_not_is_refused(dtype):
    with pytest.raises(ValueError, match="expected float32 or bfloat16"):
        layouts.read_config(FIELDS, dtype=dtype, parameter_dtype="float32")


def test_weights_in_fp8_are_named(tmp_path):
    head = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with (
        safetensors_folder.TensorReader(tmp_path) as reader,
        pytest.raises(ValueError, match="tensor x cannot be read"),
    ):
        reader.read("x", (slice(None),))
