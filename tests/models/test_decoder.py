"""The decoder: causal, indifferent to padding, attention in parts equal to attention in one piece, sharded as said."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rstar_jax.models import Decoder, DecoderConfig, attention, decoder, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh, spec

MODEL = DecoderConfig(vocabulary_size=64, layers=2, embed=32, heads=4, kv_heads=2, head=8, mlp=32)


def logits(policy, tokens, valid=None):
    tokens = jnp.asarray(tokens)
    valid = jnp.ones(tokens.shape, bool) if valid is None else valid
    model = parameters.bind(Decoder, MODEL, policy)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = model(tokens, positions, attention.whole(attention.layout(valid)))
    return model.logits(hidden)


@pytest.fixture(scope="module")
def policy():
    return parameters.initialise(Decoder, MODEL, make_mesh(MeshConfig(data=1), jax.devices()[:1]), 0)


def test_a_token_sees_nothing_after_it(policy):
    tokens = np.arange(12)[None]
    changed = tokens.copy()
    changed[0, 7:] += 20
    before, after = logits(policy, tokens), logits(policy, changed)
    np.testing.assert_array_equal(before[0, :7], after[0, :7])
    assert not np.allclose(before[0, 7:], after[0, 7:])


@pytest.mark.parametrize("plain", [{"FEW_LAYERS": 0}, {"_linear": jnp.matmul}])
def test_unrolled_layers_and_turned_products_change_nothing(policy, monkeypatch, plain):
    """A loop over the layers, and products whose gradient is JAX's own, give the same values and gradients."""
    tokens = np.random.default_rng(0).integers(0, 64, (3, 12))

    def loss(policy):
        return jnp.mean(jax.nn.logsumexp(logits(policy, tokens), axis=-1) ** 2)

    value, gradients = jax.value_and_grad(loss)(policy)
    for name, other in plain.items():
        monkeypatch.setattr(decoder, name, other)
    slow_value, slow_gradients = jax.value_and_grad(loss)(policy)
    np.testing.assert_allclose(value, slow_value, rtol=1e-6)
    for fast, slow in zip(jax.tree.leaves(gradients), jax.tree.leaves(slow_gradients), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-6 * float(jnp.max(jnp.abs(slow))))


def test_padding_changes_nothing(policy):
    tokens = np.arange(12)[None]
    padded = np.concatenate([tokens, np.full((1, 5), 9)], axis=1)
    valid = jnp.arange(17)[None] < 12
    np.testing.assert_allclose(logits(policy, tokens), logits(policy, padded, valid)[:, :12], atol=1e-5)


def test_parts_merge_into_dense_softmax_attention():
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 2, 3, 2, 8)).astype(np.float32)  # [B, K, T, G, H]
    key, value = rng.normal(size=(2, 2, 2, 10, 8)).astype(np.float32)
    mask = rng.random((2, 3, 10)) < 0.7
    mask[:, :, 0] = True
    scores = np.einsum("bktgh,bksh->bktgs", query, key) * 8**-0.5
    scores = np.where(mask[:, None, :, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    dense = np.einsum("bktgs,bksh->bktgh", weights / weights.sum(-1, keepdims=True), value)
    cuts = [slice(0, 4), slice(4, 9), slice(9, 10)]
    first, second, third = (
        attention.part(query, key[:, :, c], value[:, :, c], jnp.asarray(mask[:, :, c])) for c in cuts
    )
    merged = attention.normalise(attention.merge(attention.merge(first, second), third))
    np.testing.assert_allclose(merged, dense, atol=1e-5)


def test_what_is_masked_may_hold_anything(policy):
    query = jnp.ones((1, 1, 1, 1, 8))
    key = jnp.ones((1, 1, 4, 8)).at[:, :, 2:].set(1e30)
    mask = jnp.array([[[True, True, False, False]]])
    p = attention.part(query, key, jnp.ones((1, 1, 4, 8)), mask)
    np.testing.assert_allclose(attention.normalise(p), 1.0)


def test_parameters_are_sharded_by_their_axes():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    policy = parameters.initialise(Decoder, MODEL, mesh, 0)
    assert policy["layers"]["query"].sharding.spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert policy["layers"]["down"].sharding.spec == PartitionSpec(None, "tensor", "fsdp")
    assert policy["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
    replicated = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(policy)
        if leaf.sharding.is_fully_replicated
    ]
    assert all("norm" in path for path in replicated)


def test_initial_parameters_do_not_depend_on_the_mesh():
    one = parameters.initialise(Decoder, MODEL, make_mesh(MeshConfig(data=1), jax.devices()[:1]), 5)
    eight = parameters.initialise(Decoder, MODEL, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, eight)


def test_a_mesh_axis_is_used_once():
    assert spec("batch", "length", "embed") == PartitionSpec(("data", "fsdp"), None, None)
    assert spec("vocab", "embed") == PartitionSpec("tensor", "fsdp")


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected at most 8 devices"):
        make_mesh(MeshConfig(data=16))


@pytest.mark.parametrize(
    ("mesh", "change", "message"),
    [
        ({"tensor": 4}, {}, r"MeshConfig.tensor \(4\): expected a divisor of DecoderConfig.kv_heads \(2\)"),
        (
            {"tensor": 2},
            {"vocabulary_size": 63},
            r"MeshConfig.fsdp \* tensor \(2\): .* DecoderConfig.vocabulary_size \(63\)",
        ),
        ({"fsdp": 8}, {"embed": 36}, r"MeshConfig.fsdp \(8\): expected a divisor of DecoderConfig.embed \(36\)"),
    ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused(mesh, change, message):
    with pytest.raises(ValueError, match=message):
        parameters.initialise(Decoder, dataclasses.replace(MODEL, **change), make_mesh(MeshConfig(**mesh)), 0)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="multiple of kv_heads"):
        DecoderConfig(vocabulary_size=8, layers=1, embed=8, heads=3, kv_heads=2, head=4, mlp=8)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("length", [6, 130])
def test_layers_taken_apart_are_the_same_model(turned, length):
    """More than ten: their numbers must not be sorted as text."""
    deep = dataclasses.replace(MODEL, layers=12)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    values = parameters.initialise(Decoder, deep, mesh, 0)
    tokens = jnp.arange(length)[None] % deep.vocabulary_size
    rows = attention.layout(jnp.ones(tokens.shape, bool))

    def logits(config, own):
        model = parameters.bind(Decoder, config, own)
        return model.logits(model(tokens, jnp.arange(length)[None], attention.whole(rows))[0])

    config, apart = parameters.unstacked(deep, values, turned)
    assert config.turned == turned
    np.testing.assert_allclose(logits(config, apart), logits(deep, values), atol=1e-5)
