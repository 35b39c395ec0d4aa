"""Deep models on one CPU, whose layers the host calls one by one, are decoded as all others are."""

import dataclasses

import jax
import numpy as np
import pytest

from rstar_jax.decoding import Engine, by_layer, engine
from rstar_jax.decoding.shards import compiled_programs
from rstar_jax.models import Decoder, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from tests.decoding.test_engine import LONG, MODEL, STOPS, TOKENIZER, grow, outline, prefixes

DEEP = dataclasses.replace(MODEL, layers=3)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


@pytest.fixture(scope="module")
def policy(mesh):
    return jax.tree.map(lambda leaf: leaf * 2.0, parameters.initialise(Decoder, DEEP, mesh, 0))


@pytest.fixture(scope="module")
def ppm(policy, mesh):
    ppm = parameters.preference_from_policy(DEEP, policy, mesh)
    return ppm | {"value": 0.1 * jax.random.normal(jax.random.key(5), ppm["value"].shape)}


@pytest.fixture
def deep(monkeypatch):
    """Three layers are many, and 2048 numbers are more than the caches hold."""
    monkeypatch.setattr(by_layer, "FEW_LAYERS", 2)
    monkeypatch.setattr(engine, "_BEYOND_CACHES", DEEP.embed * DEEP.mlp)


@pytest.mark.parametrize(
    "changes", [{}, {"chunk_steps": 3, "samples_per_lane": 1}, {"pages": 44, "node_buckets": (1, 4)}, {"window": 5}]
)
def test_same_trees_and_values_as_in_one_program(policy, ppm, mesh, deep, monkeypatch, changes):
    changes = dict(changes)
    model = dataclasses.replace(DEEP, window=changes.pop("window", None))
    config = dataclasses.replace(LONG, **changes)

    def grown():
        own = Engine(model, TOKENIZER, mesh, config, policy=policy, ppm=ppm, seed=3)
        return own, grow(own, levels=3, score=model.window is None)[0]  # one that sees little may write nothing

    layered, found = grown()
    assert by_layer.applies(layered._policy.config, mesh) and layered._policy.config.turned
    monkeypatch.setattr(by_layer, "FEW_LAYERS", 99)
    monkeypatch.setattr(engine, "_BEYOND_CACHES", 2**60)
    whole, expected = grown()
    assert not by_layer.applies(whole._policy.config, mesh) and not whole._policy.config.turned
    assert outline(found) == outline(expected)
    for (_, steps, values), (_, others, wanted) in zip(found, expected, strict=True):
        np.testing.assert_allclose([s.logprob for s in steps], [s.logprob for s in others], atol=1e-4)
        np.testing.assert_allclose(values, wanted, atol=5e-5)
    assert dataclasses.replace(layered.stats, seconds=0) == dataclasses.replace(whole.stats, seconds=0)


def test_layers_share_a_program_and_nothing_is_compiled_after_warm_up(policy, mesh, deep):
    sampler = Engine(DEEP, TOKENIZER, mesh, LONG, policy=policy)
    sampler.expand(prefixes(), 3, stops=STOPS)
    before = compiled_programs()
    for count in (1, 2, 3, 4, 5):
        sampler.begin()
        sampler.expand(prefixes(count), 3, stops=STOPS)
    assert compiled_programs() == before


def test_a_model_on_several_devices_is_one_program(mesh):
    wide = make_mesh(MeshConfig(data=2), jax.devices()[:2])
    apart = dataclasses.replace(DEEP, layers=24, stacked=False)
    assert by_layer.applies(apart, mesh)
    assert not by_layer.applies(apart, wide) and not by_layer.applies(dataclasses.replace(apart, stacked=True), mesh)
