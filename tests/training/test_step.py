"""One train step on every mesh, by every program: the same numbers, the same parameters."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, TrainingConfig, batches, losses, trainer
from tests.training.test_packing import policy_examples, preference_examples

MODEL = DecoderConfig(vocabulary_size=64, layers=6, embed=16, heads=4, kv_heads=4, head=4, mlp=16, tied=False)
CONFIG = TrainingConfig(steps=3, batch=8, learning_rate=1e-2, warmup_steps=1, buckets=(64,), packed=True)
ONE = MeshConfig(data=1)
MESHES = [
    MeshConfig(data=1, tensor=4),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=1, fsdp=8),
]
EVERYTHING = {"remat": "layer", "attention_block": 24, "loss_chunk": 16, "microbatch": 4}
KINDS = {
    "policy": (Decoder, losses.policy_loss, policy_examples, batches.policy_batch),
    "preference": (PreferenceModel, losses.preference_loss, preference_examples, batches.preference_batch),
}


def batch_at(name):
    """Other tokens at each step in rows that look the same, so that a step is compiled once."""
    _, _, make, batch = KINDS[name]
    first = batch(make(np.random.default_rng(0), 10), CONFIG.buckets, CONFIG.packed)
    first = batches.with_rows(first, 8)
    return lambda step: first | {"tokens": (first["tokens"] + step) % MODEL.vocabulary_size}


@functools.cache
def start(name, model):
    """Parameters on one device."""
    kind = KINDS[name][0]
    values = parameters.initialise(kind, model, make_mesh(ONE, jax.devices()[:1]), 0)
    if kind is PreferenceModel:
        values["value"] = values["value"] + np.random.default_rng(1).normal(size=model.embed).astype(np.float32)
    return jax.tree.map(np.asarray, values)


def trained(name, mesh=ONE, model=MODEL, optimizer="adamw", **program):
    """(parameters as numpy, history) after some steps; all that an update has is seen in them."""
    kind, loss, _, _ = KINDS[name]
    mesh = make_mesh(mesh, jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])
    values = jax.tree.map(jax.device_put, start(name, model), parameters.shardings(kind, model, mesh))
    program = ProgramConfig(**program)
    config = dataclasses.replace(CONFIG, program=program, optimizer=optimizer)
    own = functools.partial(loss, model, dataclasses.replace(program, microbatch=None))
    values, history = trainer.train(own, values, batch_at(name), config, mesh)
    return jax.tree.map(np.asarray, values), history


@functools.cache
def plain(name):
    return trained(name)


def same(found, name):
    """Adam divides by what a gradient usually is: parameters of a small gradient are less exact."""
    (values, history), (wanted, expected) = found, plain(name)
    for one, other in zip(history, expected, strict=True):
        for metric in one:
            np.testing.assert_allclose(one[metric], other[metric], rtol=2e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), values, wanted)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_every_mesh_trains_the_same(name, mesh):
    same(trained(name, mesh), name)


@pytest.mark.parametrize(
    ("name", "program", "mesh"),
    [
        ("policy", {"remat": "attention", "attention_block": 16}, ONE),
        ("policy", EVERYTHING, MeshConfig(data=2, fsdp=2)),
        ("preference", EVERYTHING, MeshConfig(data=2, fsdp=2)),
    ],
    ids=str,
)
def test_every_program_trains_the_same(name, program, mesh):
    same(trained(name, mesh, **program), name)


def test_the_kernel_for_tpus_trains_the_same():
    same(trained("policy", MeshConfig(data=2, tensor=2), attention="splash"), "policy")


def test_the_number_of_parts_is_that_of_the_batch():
    """Steps of other numbers of rows share a program; parts that are empty are not computed."""
    sizes = [1, 2, 1]

    def batch(step):
        examples = policy_examples(np.random.default_rng(step), sizes[step])
        return batches.policy_batch(examples, (32,))

    def run(program):
        mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
        values = jax.tree.map(jax.device_put, start("policy", MODEL), parameters.shardings(Decoder, MODEL, mesh))
        loss = functools.partial(losses.policy_loss, MODEL, ProgramConfig())
        config = dataclasses.replace(CONFIG, steps=len(sizes), program=program)
        return trainer.train(loss, values, batch, config, mesh)

    (values, history), (wanted, expected) = run(ProgramConfig(microbatch=1)), run(ProgramConfig(microbatch=4))
    np.testing.assert_allclose([own["loss"] for own in history], [own["loss"] for own in expected], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), values, wanted)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_computed_in_bf16_moves_every_weight(optimizer):
    """With a small rate, of which an update in bf16 would round to nothing."""
    low = dataclasses.replace(MODEL, dtype="bfloat16", parameter_dtype="bfloat16", tied=True)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    values = parameters.initialise(Decoder, low, mesh, 0)
    before = jax.tree.map(lambda x: np.asarray(x, np.float32), values)
    config = dataclasses.replace(CONFIG, learning_rate=7e-6, warmup_steps=0, optimizer=optimizer)
    loss = functools.partial(losses.policy_loss, dataclasses.replace(low, parameter_dtype="float32"), ProgramConfig())
    after, _ = trainer.train(loss, values, batch_at("policy"), config, mesh)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {np.dtype("float32")}
    moved = jax.tree.map(lambda a, b: np.mean(np.asarray(a) != b), after, before)
    assert min(jax.tree.leaves(moved["layers"])) > 0.99 and moved["norm"]["scale"] > 0.99


def test_norms_and_biases_do_not_decay():
    model = dataclasses.replace(MODEL, tied=True)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    begin = parameters.initialise(Decoder, model, mesh, 0)

    def nothing(values, batch):
        return {"loss": (0.0 * sum(leaf.sum() for leaf in jax.tree.leaves(values)), np.float32(1.0))}

    config = dataclasses.replace(CONFIG, weight_decay=0.5, steps=5)
    for optimizer in ("adamw", "muon"):
        changed = dataclasses.replace(config, optimizer=optimizer)
        after, _ = trainer.train(nothing, begin, batch_at("policy"), changed, mesh)
        shrunk = {
            jax.tree_util.keystr(path): not np.array_equal(leaf, old)
            for (path, leaf), old in zip(
                jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(begin), strict=True
            )
        }
        assert not [path for path, decays in shrunk.items() if decays and ("norm" in path or "bias" in path)]
        assert shrunk["['layers']['gate']"] and shrunk["['layers']['query']"]
        assert shrunk["['embedding']"] == (optimizer == "adamw")
