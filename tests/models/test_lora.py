"""Adapters: nothing at first, merged the same as beside, trained alone, written as PEFT reads them."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from rstar_jax import models
from rstar_jax.models import Lora, lora, parameters
from rstar_jax.models.config import LINEAR
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, TrainingConfig, batches, losses, trainer
from tests.models import tiny
from tests.training.test_packing import policy_examples, preference_examples

CONFIG = TrainingConfig(steps=4, batch=4, learning_rate=1e-2, warmup_steps=0, buckets=(64,), packed=True)
ONE = MeshConfig(data=1)
TOKENS = np.arange(3, 27)[None] % 64


def policy(tmp_path, layout="qwen2_untied", mesh=ONE):
    tiny.write(tmp_path / layout, layout)
    devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor]
    return models.load(tmp_path / layout, make_mesh(mesh, devices), "float32")


def noisy(model):
    """`model` with adapters that do something."""

    def of(path, leaf):
        if not path[-1].key.endswith("_lora_b"):
            return leaf
        return leaf + 0.1 * np.random.default_rng(len(str(path))).normal(size=leaf.shape).astype(np.float32)

    return dataclasses.replace(model, parameters=jax.tree_util.tree_map_with_path(of, model.parameters))


def batch_at(kind=policy_examples, make=batches.policy_batch):
    return lambda step: make(kind(np.random.default_rng(step), 6), (64,), True)


def train(model, config=CONFIG, loss=losses.policy_loss, at=None):
    own = functools.partial(loss, model.config, ProgramConfig())
    trained = parameters.is_adapted
    return trainer.train(own, model.parameters, at or batch_at(), config, model.mesh, trained=trained)


@pytest.mark.parametrize("layout", ["qwen2_untied", "phi3"])
def test_fresh_adapters_change_nothing_and_merged_ones_are_those_beside(tmp_path, layout):
    plain = policy(tmp_path, layout)
    fresh = lora.with_adapters(plain, Lora(rank=3, alpha=6.0), 0)
    np.testing.assert_allclose(fresh.logits(TOKENS), plain.logits(TOKENS), atol=1e-5)
    changed = noisy(fresh)
    assert np.abs(changed.logits(TOKENS) - plain.logits(TOKENS)).max() > 0.1
    merged = lora.merged(changed)
    np.testing.assert_allclose(merged.logits(TOKENS), changed.logits(TOKENS), atol=1e-4)
    assert merged.config == plain.config
    jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail(), merged.parameters, plain.parameters)


def test_adapters_alone_are_trained(tmp_path):
    model = lora.with_adapters(policy(tmp_path), Lora(rank=2, targets=("query", "down")), 0)
    after, history = train(model)
    same = {
        jax.tree_util.keystr(path): bool(np.array_equal(leaf, old))
        for (path, leaf), old in zip(
            jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(model.parameters), strict=True
        )
    }
    moved = {path for path, equal in same.items() if not equal}
    assert moved == {f"['layers']['{name}_lora_{side}']" for name in ("query", "down") for side in "ab"}
    assert history[-1]["loss"] < history[0]["loss"]


def test_gradients_of_adapters_are_those_of_what_they_stand_for(tmp_path):
    """d loss / d A = scale * d loss / d W B', and the other way round: by the merged model's gradient."""
    model = noisy(lora.with_adapters(policy(tmp_path), Lora(rank=3, alpha=6.0), 0))
    merged, batch = lora.merged(model), batch_at()(0)

    def gradients(own):
        def total(values):
            return losses.policy_loss(own.config, ProgramConfig(), values, batch)["loss"][0]

        return jax.jit(jax.grad(total))(own.parameters)["layers"]

    found, whole = gradients(model), gradients(merged)
    for name in LINEAR:
        a, b = (model.parameters["layers"][f"{name}_lora_{side}"] for side in "ab")
        by_matrix = whole[name].reshape(2, int(np.prod(a.shape[1:-1])), -1)
        flat_a, flat_b = a.reshape(2, -1, 3), b.reshape(2, 3, -1)
        wanted = (
            2.0 * jnp.einsum("lio,lro->lir", by_matrix, flat_b),
            2.0 * jnp.einsum("lir,lio->lro", flat_a, by_matrix),
        )
        for side, exact in zip("ab", wanted, strict=True):
            own = found[f"{name}_lora_{side}"].reshape(exact.shape)
            np.testing.assert_allclose(own, exact, atol=1e-4 * float(jnp.abs(exact).max()), rtol=1e-3)


def test_a_frozen_base_may_be_bf16_and_adapters_are_fp32(tmp_path):
    tiny.write(tmp_path / "model", "qwen2_tied")
    low = models.load(tmp_path / "model", make_mesh(MeshConfig(data=1), jax.devices()[:1]), "bfloat16")
    model = lora.with_adapters(low, Lora(rank=2), 0)
    after, _ = train(model)
    assert after["layers"]["gate"].dtype == jnp.bfloat16 and after["layers"]["gate_lora_a"].dtype == jnp.float32
    np.testing.assert_array_equal(after["layers"]["gate"], low.parameters["layers"]["gate"])
    merged = lora.merged(dataclasses.replace(model, parameters=after))
    assert merged.parameters["layers"]["gate"].dtype == jnp.bfloat16


def test_a_ppm_trains_its_head_beside_its_adapters(tmp_path):
    ppm = lora.with_adapters(models.preference_from_policy(policy(tmp_path), 5.0), Lora(rank=2), 0)
    batch = batch_at(preference_examples, batches.preference_batch)(0)
    after, history = train(ppm, loss=losses.preference_loss, at=lambda step: batch)
    assert np.abs(after["value"]).max() > 0 and float(after["value_scale"]) == 5.0
    np.testing.assert_array_equal(after["decoder"]["layers"]["gate"], ppm.parameters["decoder"]["layers"]["gate"])
    assert history[-1]["loss"] < history[0]["loss"]


def test_dropout_is_drawn_by_the_row_whatever_the_mesh_and_the_parts(tmp_path):
    def noisy_batch(step):
        batch = batches.with_rows(batch_at()(step), 4)
        seeds = np.random.default_rng((1, step)).integers(0, 1 << 32, len(batch["tokens"]), np.uint32)
        return batch | {"noise": seeds}

    results = []
    for mesh, program in ((ONE, {}), (MeshConfig(data=2, fsdp=2), {"microbatch": 4})):
        model = lora.with_adapters(policy(tmp_path, mesh=mesh), Lora(rank=2, dropout=0.5), 0)
        config = dataclasses.replace(CONFIG, program=ProgramConfig(**program))
        results.append([row["loss"] for row in train(model, config, at=noisy_batch)[1]])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)
    model = lora.with_adapters(policy(tmp_path), Lora(rank=2, dropout=0.5), 0)
    quiet = [row["loss"] for row in train(model)[1]]
    assert abs(quiet[-1] - results[0][-1]) > 1e-3


@pytest.mark.parametrize(
    ("layout", "targets", "modules"),
    [
        ("qwen2_untied", LINEAR, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        ("llama_tied", ("query", "up"), ["q_proj", "up_proj"]),
        ("phi3", LINEAR, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
        ("phi3", ("query", "value", "up", "down"), ["qkv_proj", "gate_up_proj", "down_proj"]),
    ],
)
def test_what_is_written_is_what_peft_reads(tmp_path, layout, targets, modules):
    """W + alpha / r * B A of the written tensors, whose names are those of the checkpoint's, is the merged matrix."""
    model = noisy(lora.with_adapters(policy(tmp_path, layout), Lora(rank=3, alpha=6.0, targets=targets), 0))
    lora.save(model, tmp_path / "adapters", "base")
    fields = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (fields["r"], fields["lora_alpha"], fields["peft_type"]) == (3, 6.0, "LORA")
    assert fields["target_modules"] == modules
    adapters = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    models.save(lora.merged(model), tmp_path / "merged")
    before, after = (
        load_file(tmp_path / layout / "model.safetensors"),
        load_file(tmp_path / "merged" / "model.safetensors"),
    )
    changed = 0
    for name, matrix in after.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in adapters:
            a, b = (adapters.pop(f"{key}.lora_{side}.weight") for side in "AB")
            module = name.split(".")[-2]
            rank, alpha = fields["rank_pattern"].get(module, 3), fields["alpha_pattern"].get(module, 6.0)
            assert a.shape[0] == b.shape[1] == rank
            np.testing.assert_allclose(before[name] + alpha / rank * b @ a, matrix, atol=1e-5)
            changed += 1
        else:
            np.testing.assert_array_equal(before[name], matrix)
    assert changed == 2 * len(modules) and not adapters


def test_what_cannot_be_written_is_named(tmp_path):
    model = lora.with_adapters(policy(tmp_path, "phi3"), Lora(rank=2), 0)
    with pytest.raises(ValueError, match="expected a model whose adapters are merged"):
        models.save(model, tmp_path / "whole")
    with pytest.raises(ValueError, match="Lora.targets: expected some of query"):
        Lora(targets=("lm_head",))
