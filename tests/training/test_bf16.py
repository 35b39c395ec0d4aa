"""Training that computes in bf16 over fp32 parameters: near what fp32 finds, and as repeatable."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, TrainingConfig, batches, losses, trainer

EXACT = DecoderConfig(vocabulary_size=64, layers=2, embed=32, heads=4, kv_heads=2, head=8, mlp=32, window=6)
MODEL = dataclasses.replace(EXACT, dtype="bfloat16")
CONFIG = TrainingConfig(steps=12, batch=4, learning_rate=1e-2, warmup_steps=2, buckets=(32,), checkpoint_every=5)
PROGRAM = ProgramConfig()
LOSSES = {Decoder: losses.policy_loss, PreferenceModel: losses.preference_loss}


def one_device():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


def start(kind, mesh):
    policy = parameters.initialise(Decoder, MODEL, mesh, 0)
    if kind is Decoder:
        return policy
    ppm = parameters.preference_from_policy(MODEL, policy, mesh)
    return ppm | {
        "value": ppm["value"] + np.random.default_rng(1).normal(size=MODEL.embed, scale=0.2).astype(np.float32)
    }


def batch(kind, step=0):
    """Rows of 3 to 16 tokens in a bucket of 32: behind a window of 6, padding sees nothing."""
    rng = np.random.default_rng(step % 2)
    rows = [rng.integers(0, 64, length).astype(np.int32) for length in rng.integers(3, 17, 8)]
    if kind is Decoder:
        examples = [batches.PolicyExample(tokens=row, learn=np.arange(len(row)) > 1) for row in rows[:4]]
        return batches.policy_batch(examples, CONFIG.buckets)
    pairs = zip(rows[:4], rows[4:], strict=True)
    examples = [batches.PreferenceExample(prefix=a[:2], candidates=(a, b[:9]), pairs=((0, 1, 0.5),)) for a, b in pairs]
    return batches.preference_batch(examples, CONFIG.buckets)


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_and_gradients_are_near_those_of_fp32(kind):
    values = start(kind, one_device())

    def computed(model):
        def mean(p):
            total, count = LOSSES[kind](model, PROGRAM, p, batch(kind))["loss"]
            return total / count

        loss, gradients = jax.jit(jax.value_and_grad(mean))(values)
        return float(loss), gradients

    (loss, gradients), (exact, exact_gradients) = computed(MODEL), computed(EXACT)
    assert abs(loss - exact) < 0.02 * exact
    for (path, leaf), wanted in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(exact_gradients), strict=True
    ):
        assert leaf.dtype == jnp.float32, path
        error, size = np.linalg.norm(leaf - wanted), np.linalg.norm(wanted)
        assert error <= 0.05 * size + 1e-5, (path, error, size)


def test_what_is_trained_in_bf16_learns_in_fp32_parameters_and_goes_on_where_it_was(tmp_path):
    mesh = make_mesh(MeshConfig(data=2))
    policy = parameters.initialise(Decoder, MODEL, mesh, 0)
    loss = functools.partial(losses.policy_loss, MODEL, PROGRAM)
    train = functools.partial(trainer.train, loss, policy, lambda step: batch(Decoder, step), CONFIG, mesh)
    whole, history = train()
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {jnp.dtype("float32")}
    moved = jax.tree.map(lambda a, b: np.mean(np.asarray(a != b)), whole["layers"], policy["layers"])
    assert min(jax.tree.leaves(moved)) > 0.9  # in bf16 most updates would round to nothing

    def stop(step, metrics, speed):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoints=tmp_path / "run", on_step=stop)
    resumed, again = train(checkpoints=tmp_path / "run")
    assert again == history
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
