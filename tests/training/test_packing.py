"""Rows that hold several sequences: no sequence is lost, none sees another, and the loss is that of padded rows."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, batches, losses
from rstar_jax.training.packing import pack

MODEL = DecoderConfig(vocabulary_size=64, layers=2, embed=16, heads=2, kv_heads=1, head=8, mlp=16)
PROGRAM = ProgramConfig()


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 64), max_size=60))
def test_every_sequence_has_one_place_and_no_row_is_too_long(lengths):
    packed = pack(lengths, 64)
    assert sorted(place for row in packed for place in row) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in row) <= 64 for row in packed)
    assert all(packed)
    # No row could take in another one whole, so that more than half of what there is room for is used.
    assert len(packed) <= 1 or 2 * sum(lengths) > 64 * (len(packed) - 1)


def test_what_is_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="a sequence of 65 tokens: expected at most 64"):
        pack([3, 65], 64)


def policy_examples(rng, count):
    lengths = rng.integers(2, 30, count)
    return [
        batches.PolicyExample(
            tokens=rng.integers(0, 64, n).astype(np.int32), learn=(np.arange(n) > 0) & (rng.random(n) < 0.7)
        )
        for n in lengths
    ]


def preference_examples(rng, count):
    def tokens(most):
        return rng.integers(0, 64, rng.integers(1, most)).astype(np.int32)

    return [
        batches.PreferenceExample(
            prefix=tokens(12),
            candidates=tuple(tokens(5) for _ in range(3)),
            pairs=((0, 1, 0.5), (0, 2, 0.25), (1, 2, 1.0))[: rng.integers(1, 4)],
        )
        for _ in range(count)
    ]


def value_examples(rng, count):
    lengths = rng.integers(4, 30, count)
    return [
        batches.ValueExample(tokens=rng.integers(0, 64, n).astype(np.int32), ends=(1, int(n) - 1), values=(0.5, -0.25))
        for n in lengths
    ]


KINDS = {
    "policy": (Decoder, losses.policy_loss, policy_examples, batches.policy_batch),
    "preference": (PreferenceModel, losses.preference_loss, preference_examples, batches.preference_batch),
    "value": (PreferenceModel, losses.value_loss, value_examples, batches.value_batch),
}


def start(kind, model=MODEL):
    values = parameters.initialise(kind, model, make_mesh(MeshConfig(data=1), jax.devices()[:1]), 0)
    if kind is PreferenceModel:
        values["value"] = 0.3 * jax.random.normal(jax.random.key(1), values["value"].shape)
    return values


@functools.cache
def computed(name, model=MODEL, program=PROGRAM):
    """(sums, gradients of the loss's sum) of a batch, jitted."""

    def loss(values, batch):
        sums = KINDS[name][1](model, program, values, batch)
        return sums["loss"][0], sums

    return jax.jit(lambda values, batch: jax.grad(loss, has_aux=True)(values, batch)[::-1])


def same(found, wanted, tolerance=2e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * max(np.abs(other).max(), 1e-3), rtol=tolerance)


@pytest.mark.parametrize(("name", "window"), [*((name, None) for name in KINDS), ("policy", 6), ("preference", 6)])
def test_packed_rows_have_the_loss_and_the_gradients_of_padded_ones(name, window):
    kind, _, make, batch = KINDS[name]
    model = dataclasses.replace(MODEL, window=window)
    values = start(kind, model)
    for seed in range(3):
        examples = make(np.random.default_rng(seed), 9)
        packed = batches.with_rows(batch(examples, (64,), packed=True), 8)  # of one shape
        assert packed["segments"].max() > 1 and not packed["segments"][-1].any()
        same(computed(name, model)(values, packed), computed(name, model)(values, batch(examples, (32,))))


@pytest.mark.parametrize("name", KINDS)
def test_empty_rows_have_no_influence(name):
    kind, _, make, batch = KINDS[name]
    plain = batch(make(np.random.default_rng(0), 5), (64,), packed=True)
    more, values = batches.with_rows(plain, 8), start(kind)
    assert len(more["tokens"]) == 8
    found = computed(name)(values, more)
    same(found, computed(name)(values, plain))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_a_sequence_is_what_it_is_alone_whatever_lies_beside_it():
    values, rng = start(Decoder), np.random.default_rng(0)
    one, *others = policy_examples(rng, 4)
    alone = computed("policy")(values, batches.policy_batch([one], (128,), packed=True))
    silent = [dataclasses.replace(own, learn=np.zeros_like(own.learn)) for own in others]
    same(computed("policy")(values, batches.policy_batch([one, *silent], (128,), packed=True)), alone)


def test_the_pairs_of_a_node_have_the_loss_of_pairs_that_stand_alone():
    """The path is read once for all candidates, in one row, and each candidate sees the path and itself alone."""
    values, rng = start(PreferenceModel), np.random.default_rng(2)
    nodes = preference_examples(rng, 4)
    alone = [
        batches.PreferenceExample(
            prefix=node.prefix, candidates=(node.candidates[a], node.candidates[b]), pairs=((0, 1, weight),)
        )
        for node in nodes
        for a, b, weight in node.pairs
    ]
    together = computed("preference")(values, batches.preference_batch(nodes, (64,)))
    same(together, computed("preference")(values, batches.preference_batch(alone, (64,))))
    # And as sequences of their own, without branches.
    rows = [np.concatenate([pair.prefix, candidate]) for pair in alone for candidate in pair.candidates]
    batch = batches.policy_batch([batches.PolicyExample(tokens=row, learn=row > 0) for row in rows], (32,))
    last = np.array([[len(row) - 1] for row in rows])
    scores = jax.jit(functools.partial(losses.preference_scores, MODEL, PROGRAM))(values, batch, last)[:, 0]
    chosen, rejected = np.asarray(scores[::2]), np.asarray(scores[1::2])
    weight = np.array([pair.pairs[0][2] for pair in alone])
    wanted = np.sum(weight * np.log1p(np.exp(rejected - chosen)))
    np.testing.assert_allclose(together[0]["loss"], (wanted, weight.sum()), rtol=1e-5)
