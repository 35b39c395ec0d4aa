"""Cross-entropy in chunks over a mesh equals the one that holds all logits, and so do its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.partitioning import MeshConfig, make_mesh, place, sharding
from rstar_jax.training.cross_entropy import cross_entropy

MESHES = [
    MeshConfig(data=1),
    MeshConfig(data=2),
    MeshConfig(data=1, fsdp=4),
    MeshConfig(data=1, tensor=2),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=1, fsdp=8),
]


def dense(hidden, head, targets, weights):
    """(loss, right), with all logits at once."""
    logits = jnp.einsum("btd,vd->btv", hidden, head, precision="highest")
    own = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - own))
    return loss, jnp.sum(weights * (own >= logits.max(axis=-1)))


def with_gradients(function):
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1), has_aux=True))


def inputs(seed, batch=8, length=5, width=12, vocabulary=16, scale=1.0):
    rng = np.random.default_rng(seed)
    hidden = (scale * rng.normal(size=(batch, length, width))).astype(np.float32)
    head = rng.normal(size=(vocabulary, width)).astype(np.float32)
    targets = rng.integers(0, vocabulary, (batch, length)).astype(np.int32)
    return hidden, head, targets, rng.integers(0, 2, (batch, length)).astype(bool)


@pytest.mark.parametrize("config", MESHES, ids=str)
@pytest.mark.parametrize("chunk", [3, 1000])
def test_it_is_the_dense_one_on_every_mesh(config, chunk):
    hidden, head, targets, weights = inputs(0)
    (loss, right), wanted = with_gradients(dense)(hidden, head, targets, weights)
    mesh = make_mesh(config, jax.devices()[: config.data * config.fsdp * config.tensor])
    with jax.set_mesh(mesh):
        placed = place(mesh, {"hidden": hidden, "targets": targets, "weights": weights}, "batch")
        table = jax.device_put(head, sharding(mesh, "head_vocab", "embed"))
        own = with_gradients(lambda *arguments: cross_entropy(*arguments, chunk))
        found, gradients = own(placed["hidden"], table, placed["targets"], placed["weights"])
    np.testing.assert_allclose(found, (loss, right), rtol=1e-5)
    for gradient, exact in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, exact, atol=1e-5)
    assert gradients[1].sharding.is_equivalent_to(table.sharding, 2)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9), st.integers(2, 17)),
    chunk=st.integers(1, 40),
    scale=st.sampled_from([1e-3, 1.0, 50.0]),
)
def test_of_any_shape_without_a_mesh(seed, shape, chunk, scale):
    arguments = inputs(seed, *shape, scale=scale)
    found, gradients = with_gradients(lambda *own: cross_entropy(*own, chunk))(*arguments)
    wanted, exact = with_gradients(dense)(*arguments)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    for one, other in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * max(scale, 1.0))


def test_what_has_no_weight_has_no_influence():
    hidden, head, targets, weights = inputs(1)
    other = np.where(weights[..., None], hidden, 1e3).astype(np.float32)
    one, gradients = with_gradients(lambda *own: cross_entropy(*own, 4))(hidden, head, targets, weights)
    two, _ = with_gradients(lambda *own: cross_entropy(*own, 4))(other, head, targets, weights)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert not np.any(gradients[0][~weights])


def operations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


def test_logits_are_held_by_the_chunk_and_computed_once():
    hidden, head, targets, weights = inputs(2, batch=4, length=64, width=8, vocabulary=32)
    program = jax.make_jaxpr(with_gradients(lambda *own: cross_entropy(*own, 16)))(hidden, head, targets, weights)
    found = list(operations(program.jaxpr))
    largest = max(int(np.prod(out.aval.shape)) for own in found for out in own.outvars)
    assert largest <= max(hidden.size, 16 * 32)
    assert sum(own.primitive.name == "dot_general" for own in found) == 3  # logits, and two gradients


def test_in_bf16_sums_are_those_of_fp32():
    hidden, head, targets, weights = inputs(3, batch=8, length=64, width=64, vocabulary=512)
    low = jnp.asarray(hidden, jnp.bfloat16)
    (loss, _), gradients = with_gradients(lambda *own: cross_entropy(*own, 64))(low, head, targets, weights)
    exact_head = jnp.asarray(head, jnp.bfloat16).astype(jnp.float32)
    (wanted, _), exact = with_gradients(dense)(low.astype(jnp.float32), exact_head, targets, weights)
    assert gradients[0].dtype == jnp.bfloat16 and gradients[1].dtype == jnp.float32
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for one, other in zip(gradients, exact, strict=True):
        assert np.linalg.norm(one.astype(jnp.float32) - other) < 0.01 * np.linalg.norm(other)
