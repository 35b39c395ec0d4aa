"""Training: what is killed and begun again ends the same; batches depend on the step alone; moments are sharded."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from rstar_jax import files
from rstar_jax.models import Decoder, DecoderConfig, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, TrainingConfig, batches, losses, trainer
from rstar_jax.training.optimizer import learning_rate, make_optimizer
from rstar_jax.training.step import optimizer_shardings

MODEL = DecoderConfig(vocabulary_size=64, layers=2, embed=16, heads=4, kv_heads=2, head=8, mlp=16)
CONFIG = TrainingConfig(steps=8, batch=4, learning_rate=1e-2, warmup_steps=2, buckets=(16,), checkpoint_every=3)
LOSS = functools.partial(losses.policy_loss, MODEL, ProgramConfig())


def examples(count=50):
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 16, count)
    return [
        batches.PolicyExample(tokens=rng.integers(0, 64, n).astype(np.int32), learn=np.arange(n) > 1) for n in lengths
    ]


def batch_at(config=CONFIG):
    at = batches.order([examples(), examples(20)], [0.7, 0.3], config.batch, config.seed)
    return lambda step: batches.policy_batch(at(step), config.buckets)


class Killed(Exception):
    pass


def killed_at(last):
    """An `on_step` that ends the training there."""

    def on_step(step, metrics, speed):
        if step == last:
            raise Killed

    return on_step


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resumed_equals_uninterrupted(tmp_path, optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    mesh = make_mesh(MeshConfig(data=2))
    start = parameters.initialise(Decoder, MODEL, mesh, 0)
    whole, history = trainer.train(LOSS, start, batch_at(), config, mesh)

    with pytest.raises(Killed):
        trainer.train(LOSS, start, batch_at(), config, mesh, checkpoints=tmp_path / "run", on_step=killed_at(5))
    seen = []
    resumed, again = trainer.train(
        LOSS, start, batch_at(), config, mesh, checkpoints=tmp_path / "run", on_step=lambda step, *_: seen.append(step)
    )
    assert seen[0] == 3  # from the checkpoint, not from the start
    assert again == history
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_killed_training_goes_on_on_another_mesh(tmp_path):
    first, second = make_mesh(MeshConfig(data=2)), make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))
    start = parameters.initialise(Decoder, MODEL, first, 0)
    whole, history = trainer.train(LOSS, start, batch_at(), CONFIG, first)

    with pytest.raises(Killed):
        trainer.train(LOSS, start, batch_at(), CONFIG, first, checkpoints=tmp_path / "run", on_step=killed_at(5))
    moved = jax.tree.map(jax.device_put, start, parameters.shardings(Decoder, MODEL, second))
    resumed, again = trainer.train(LOSS, moved, batch_at(), CONFIG, second, checkpoints=tmp_path / "run")
    assert again[:3] == history[:3]
    np.testing.assert_allclose([own["loss"] for own in again], [own["loss"] for own in history], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), resumed, whole)
    assert resumed["layers"]["gate"].sharding.mesh == second


def test_a_training_in_a_bucket_goes_on_from_its_last_whole_checkpoint(orbax_bucket):
    """What was half written or half removed is none: of every object of a checkpoint, with or without what follows."""
    mesh = make_mesh(MeshConfig(data=2))
    start, folder = parameters.initialise(Decoder, MODEL, mesh, 0), orbax_bucket / "training"
    whole, history = trainer.train(LOSS, start, batch_at(), CONFIG, mesh)

    def go(until=None):
        seen = []

        def on_step(step, *_):
            seen.append(step)
            if step == until:
                raise Killed

        return trainer.train(LOSS, start, batch_at(), CONFIG, mesh, checkpoints=folder, on_step=on_step), seen

    with pytest.raises(Killed):
        go(until=7)
    assert files.names(folder) == ["6"]
    (resumed, again), seen = go()
    assert seen[0] == 6 and again == history
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    files.remove(folder / "6" / "commit_success.txt")  # as a kill before the end of a save, or in a removal, leaves it
    (resumed, again), seen = go()
    assert seen[0] == 0 and again == history
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    files.remove_tree(folder)
    assert files.names(folder) == []


def test_folders_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mesh = make_mesh(MeshConfig(data=1))
    start = parameters.initialise(Decoder, MODEL, mesh, 0)
    trained, _ = trainer.train(LOSS, start, batch_at(), CONFIG, mesh, checkpoints="runs/training")
    again, _ = trainer.train(LOSS, start, batch_at(), CONFIG, mesh, checkpoints="runs/training")
    jax.tree.map(np.testing.assert_array_equal, again, trained)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"training"}


def test_training_learns_and_leaves_its_start_alone():
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    start = parameters.initialise(Decoder, MODEL, mesh, 0)
    before = jax.tree.map(np.array, start)
    at = batches.order([examples(4)], [1.0], 4, 0)
    config = TrainingConfig(steps=60, batch=4, learning_rate=2e-2, buckets=(16,))
    _, history = trainer.train(LOSS, start, lambda s: batches.policy_batch(at(s), (16,)), config, mesh)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, start))


def test_batches_depend_on_the_step_alone():
    first, second = batch_at(), batch_at()
    late = second(13)
    for step in (0, 5, 13):
        for name, value in first(step).items():
            np.testing.assert_array_equal(value, batch_at()(step)[name])
    np.testing.assert_array_equal(first(13)["tokens"], late["tokens"])
    assert not np.array_equal(first(0)["tokens"], first(1)["tokens"])


def test_every_example_comes_once_an_epoch():
    source = examples(32)
    at = batches.order([source], [1.0], 4, 3)
    seen = sorted(id(example) for step in range(8) for example in at(step))
    assert seen == sorted(id(example) for example in source)


def test_moments_lie_as_their_parameters_do():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    start = parameters.initialise(Decoder, MODEL, mesh, 0)
    abstract = jax.eval_shape(make_optimizer(CONFIG).init, start)
    where = optimizer_shardings(abstract, start, mesh)
    specs = {jax.tree_util.keystr(path): leaf.spec for path, leaf in jax.tree_util.tree_leaves_with_path(where)}
    gates = [spec for path, spec in specs.items() if path.endswith("['layers']['gate']")]
    assert gates and all(spec == start["layers"]["gate"].sharding.spec for spec in gates)
    assert start["layers"]["gate"].sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


def test_the_norm_of_the_gradients_is_that_before_clipping():
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    start = parameters.initialise(Decoder, MODEL, mesh, 0)
    config = dataclasses.replace(CONFIG, steps=1, gradient_clip=1e-3)
    _, (metrics,) = trainer.train(LOSS, start, batch_at(), config, mesh)

    def mean(values):
        total, count = LOSS(values, batch_at()(0))["loss"]
        return total / count

    gradients = jax.tree.leaves(jax.grad(mean)(start))
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in gradients))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)
    assert norm > 1e-2


@pytest.mark.parametrize("broken", [{"loss": np.nan, "factor": 1.0}, {"loss": 1.0, "factor": np.inf}])
def test_a_training_that_is_not_finite_ends_in_one_line_and_leaves_no_checkpoint_of_it(tmp_path, broken):
    """The loss alone, or its gradients alone."""
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    start = parameters.initialise(Decoder, MODEL, mesh, 0)

    def loss_function(values, batch):
        size = jax.numpy.sum(values["norm"]["scale"] * batch["factor"][0])
        loss = size - jax.lax.stop_gradient(size) + batch["loss"][0]
        return {"loss": (loss, jax.numpy.ones(()))}

    def at(step):
        values = broken if step == 5 else {"loss": 1.0, "factor": 1.0}
        batch = {name: np.full(4, value, np.float32) for name, value in values.items()}
        return batch | {"tokens": np.zeros((4, 2), np.int32), "segments": np.ones((4, 2), np.int32)}

    for _ in range(2):  # begun again, it ends in the same way
        with pytest.raises(
            ValueError, match=r"^training, step 5: gradient_norm .*, loss .*: expected finite numbers.*$"
        ):
            trainer.train(loss_function, start, at, CONFIG, mesh, checkpoints=tmp_path / "run")
    with trainer.Saver(tmp_path / "run") as saver:
        assert saver.latest_step == 3


def test_what_the_mesh_does_not_divide_is_refused():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    start = parameters.initialise(Decoder, MODEL, mesh, 0)
    for change, message in (
        ({"program": ProgramConfig(microbatch=6)}, r"^ProgramConfig.microbatch \(6\): expected a multiple of .*\(4\)$"),
        ({"optimizer": "muon"}, "^TrainingConfig.optimizer='muon' .*: expected fsdp and tensor of the mesh to be 1"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.train(LOSS, start, batch_at(), dataclasses.replace(CONFIG, **change), mesh)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_scale_of_a_ppm_is_not_trained(optimizer):
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    start = parameters.preference_from_policy(MODEL, parameters.initialise(Decoder, MODEL, mesh, 0), mesh, 5.0)
    candidates = np.arange(5), np.arange(2, 6)
    pair = batches.PreferenceExample(prefix=np.arange(1), candidates=candidates, pairs=((0, 1, 1.0),))
    config = dataclasses.replace(CONFIG, optimizer=optimizer, weight_decay=0.5)
    batch = batches.preference_batch([pair], (16,))
    loss = functools.partial(losses.preference_loss, MODEL, ProgramConfig())
    trained, history = trainer.train(loss, start, lambda step: batch, config, mesh)
    assert float(trained["value_scale"]) == 5.0
    assert history[-1]["loss"] < history[0]["loss"]


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(CONFIG, step) for step in range(CONFIG.steps)]
    assert rates[0] == CONFIG.learning_rate / 2
    assert max(rates) == CONFIG.learning_rate
    assert rates[-1] < 0.2 * CONFIG.learning_rate
