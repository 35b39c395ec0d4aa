"""Attention and its gradients against a slow twin in fp64, whatever is masked and however large keys are."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.models import attention, splash
from rstar_jax.partitioning import MeshConfig, make_mesh

SHAPE = (2, 2, 3, 2, 4)  # B, K, T, G, H
KEYS = 6
CUTS = [slice(0, 1), slice(1, 4), slice(4, KEYS)]


def dense(query, key, value, mask, up):
    """(output, gradients by query, key and value of sum(output * up)), fp64: softmax and its derivative by the book."""
    query, key, value, up = (np.asarray(x, np.float64) for x in (query, key, value, up))
    seen = np.broadcast_to(mask[:, None, :, None], (*query.shape[:4], key.shape[2]))
    scores = np.einsum("bktgh,bksh->bktgs", query, key) * query.shape[-1] ** -0.5
    peak = np.max(scores, axis=-1, where=seen, initial=-1e300, keepdims=True)
    weights = np.exp(np.where(seen, scores - peak, -np.inf))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1.0)  # the peak's own weight is 1, if there is one
    by_weight = np.einsum("bktgh,bksh->bktgs", up, value)
    by_score = weights * (by_weight - (by_weight * weights).sum(-1, keepdims=True)) * query.shape[-1] ** -0.5
    return np.einsum("bktgs,bksh->bktgh", weights, value), (
        np.einsum("bktgs,bksh->bktgh", by_score, key),
        np.einsum("bktgs,bktgh->bksh", by_score, query),
        np.einsum("bktgs,bktgh->bksh", weights, up),
    )


@jax.jit
def in_parts(query, key, value, mask, up):
    """The same of attention in parts that are merged: those of the keys that `CUTS` cuts."""

    def attended(query, key, value):
        parts = [attention.part(query, key[:, :, cut], value[:, :, cut], mask[:, :, cut]) for cut in CUTS]
        return attention.normalise(attention.merge(attention.merge(*parts[:2]), parts[2]))

    output, gradients = jax.vjp(attended, query, key, value)
    return output, gradients(up)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 5e-2)])
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    scale=st.sampled_from([1.0, 30.0, 1e3]),
    masked_scale=st.sampled_from([0.0, 1.0, 1e4, 1e30]),
)
def test_attention_and_its_gradients_are_those_of_the_slow_twin(dtype, tolerance, seed, share, scale, masked_scale):
    """share: of the keys that a query sees; with few of them rows see nothing. Keys that nobody sees hold anything."""
    rng = np.random.default_rng(seed)
    query, up = rng.normal(size=(2, *SHAPE))
    key, value = rng.normal(size=(2, *SHAPE[:2], KEYS, SHAPE[-1]))
    mask = rng.random((SHAPE[0], SHAPE[2], KEYS)) < share
    unseen = ~mask.any(axis=1)[:, None, :, None]
    key = np.where(unseen, masked_scale, scale) * key
    query, key, value = (jnp.asarray(x, dtype) for x in (query, key, value))
    output, gradients = in_parts(query, key, value, mask, jnp.asarray(up, jnp.float32))
    wanted, wanted_gradients = dense(query, key, value, mask, up)
    assert not np.any(output[np.broadcast_to(~mask.any(-1)[:, None, :, None, None], SHAPE)])
    rounding = tolerance + 1e-6 * scale  # of a weight: scores are as large as keys, and exact to their last bits only
    sizes = (1.0, scale, 1.0, 1.0)  # a query's gradient is a sum of keys
    for found, exact, size in zip((output, *gradients), (wanted, *wanted_gradients), sizes, strict=True):
        assert np.isfinite(np.asarray(found, np.float64)).all()
        np.testing.assert_allclose(np.asarray(found, np.float64), exact, atol=rounding * size)


def rows_of(rng, batch, length, branches):
    """Rows of a few sequences and padding, some of them with branches behind a trunk: (layout, what sees what)."""
    segments, positions, branch = (np.zeros((batch, length), np.int32) for _ in range(3))
    for row in range(batch):
        start, segment = int(rng.integers(0, 3)) * (row % 2), 0  # every other row is padded on the left too
        while start < length - 2 and segment < 3:
            trunk, segment = int(rng.integers(1, length // 3)), segment + 1
            parts = [(0, trunk, 0)] + [(own, int(rng.integers(1, 5)), trunk) for own in (1, 2)] * branches
            for own, size, first in parts:
                stop = min(start + size, length)
                segments[row, start:stop], branch[row, start:stop] = segment, own
                positions[row, start:stop] = np.arange(first, first + stop - start)
                start = stop
    layout = attention.Layout(*map(jnp.asarray, (segments, positions, branch)[: 2 + branches]))
    seen = np.zeros((batch, length, length), bool)
    for row, query, key in np.ndindex(seen.shape):
        together = segments[row, query] == segments[row, key] > 0 and key <= query
        seen[row, query, key] = together and branch[row, key] in (0, branch[row, query])
    return layout, seen


def by_the_book(query, key, value, up, seen):
    output, gradients = dense(query, key, value, seen, up)
    return (output, *gradients)


def of_rows(attend, query, key, value, up):
    output, gradients = jax.vjp(lambda *own: attend(*own, None)[0], query, key, value)
    return (output, *gradients(up))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("block", [4, 7, 100])
def test_whole_rows_in_blocks_are_those_of_the_slow_twin(block, branches, window):
    rng = np.random.default_rng(block)
    layout, seen = rows_of(rng, 3, 20, branches)
    distance = layout.positions[:, :, None] - layout.positions[:, None, :]
    seen &= np.asarray(distance < (window or 100))
    query, up = (jnp.asarray(rng.normal(size=(3, 2, 20, 2, 4)), jnp.float32) for _ in range(2))
    key, value = (jnp.asarray(rng.normal(size=(3, 2, 20, 4)), jnp.float32) for _ in range(2))
    found = jax.jit(lambda *own: of_rows(attention.whole(layout, window, block), *own))(query, key, value, up)
    for one, exact in zip(found, by_the_book(query, key, value, up, seen), strict=True):
        np.testing.assert_allclose(one, exact, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "window", "mesh"), [(150, None, None), (150, 40, None), (128, None, MeshConfig(data=2, tensor=2))]
)
def test_the_kernel_for_tpus_is_the_twin_of_blocks(length, window, mesh):
    """Interpreted, here: padding, several sequences in a row, and keys that are large."""
    rng = np.random.default_rng(length)
    layout, _ = rows_of(rng, 2, length, False)
    query, up = (jnp.asarray(rng.normal(size=(2, 2, length, 2, 8)), jnp.float32) for _ in range(2))
    key, value = (jnp.asarray(rng.normal(size=(2, 2, length, 8)), jnp.float32) for _ in range(2))
    up = jnp.where(layout.segments[:, None, :, None, None] > 0, up, 0)
    key = key.at[0].multiply(100)

    def run(kind):
        return jax.jit(lambda *own: of_rows(kind.whole(layout, window, 128), *own))(query, key, value, up)

    wanted = run(attention)
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(make_mesh(mesh, jax.devices()[:4])):
        found = run(splash)
    for one, exact in zip(found, wanted, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, exact, atol=2e-4, rtol=1e-4)


def test_the_kernel_for_tpus_knows_no_branches():
    layout, _ = rows_of(np.random.default_rng(0), 1, 20, True)
    with pytest.raises(ValueError, match="splash attention: expected rows without branches"):
        splash.whole(layout)
