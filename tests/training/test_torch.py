"""Losses and gradients of the policy, the PPM and the PQM are those that torch finds, padded and packed."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rstar_jax import models
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, batches, losses
from tests.models import tiny
from tests.training import torch_twin

KINDS = {
    "policy": (losses.policy_loss, batches.policy_batch),
    "preference": (losses.preference_loss, batches.preference_batch),
    "value": (losses.value_loss, batches.value_batch),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny.write(folder, torch_twin.LAYOUT)
    return folder


@pytest.fixture(scope="module")
def wanted(folder, tmp_path_factory):
    """{loss: (its mean, gradients as our trees)}; of torch itself where it is installed, else the stored ones."""
    try:
        found = torch_twin.by_torch(folder)
    except ImportError:
        stored = np.load(torch_twin.GOLDENS)
        found = {}
        for key in stored.files:
            name, _, own = key.partition("/")
            found.setdefault(name, {})[own] = stored[key]
    trees = {}
    for name, gradients in found.items():
        own = tmp_path_factory.mktemp(name)
        (own / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text())))
        tensors = {key: value for key, value in gradients.items() if key.startswith("model.")}
        save_file(tensors, str(own / "model.safetensors"), metadata={"format": "pt"})
        tree = models.load(own, one_device(), "float32").parameters
        if name != "policy":
            tree = {"decoder": tree, "value": gradients["value"], "bias": gradients["bias"]}
        trees[name] = float(gradients["loss"]), tree
    return trees


def one_device():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_torch(folder, wanted, name, packed):
    model = models.load(folder, one_device(), "float32")
    loss, batch = KINDS[name]
    values = model.parameters
    if name != "policy":
        weight, bias = torch_twin.head()
        values = models.preference_from_policy(model, torch_twin.SCALE).parameters
        values = values | {"value": jax.numpy.asarray(weight), "bias": jax.numpy.float32(bias)}
    rows = batch(torch_twin.examples()[name], (48,), packed)
    assert len(rows["tokens"]) == (1 if packed else len(torch_twin.examples()[name]))

    def mean(values):
        total, count = loss(model.config, ProgramConfig(), values, rows)["loss"]
        return total / count

    found, gradients = jax.jit(jax.value_and_grad(mean))(values)
    exact, trees = wanted[name]
    assert abs(float(found) - exact) < 1e-5 * abs(exact)
    gradients.pop("value_scale", None)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(trees), strict=True):
        size = np.linalg.norm(other)
        assert size > 0 or (name, path[-1].key) == ("preference", "bias")  # which every difference of scores loses
        assert np.linalg.norm(np.asarray(one) - other) < 1e-4 * size + 1e-7, path
