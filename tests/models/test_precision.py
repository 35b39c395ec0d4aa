"""What is computed in which precision: float32 is float32 on every device, and sums are in the parameters' dtype."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, losses

MODEL = DecoderConfig(vocabulary_size=64, layers=2, embed=32, heads=4, kv_heads=2, head=8, mlp=32, tied=False)
HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
KINDS = {Decoder: losses.policy_loss, PreferenceModel: losses.preference_loss}


def batch(rows=2, length=6):
    tokens = jnp.broadcast_to(jnp.arange(length) % 3, (rows, length))
    rest = {"segments": jnp.ones_like(tokens), "positions": jnp.broadcast_to(jnp.arange(length), tokens.shape)}
    places = {name: jnp.full((rows, 1), place) for name, place in (("chosen", length - 1), ("rejected", 1))}
    learn = jnp.ones(tokens.shape, bool)
    return {"tokens": tokens, "learn": learn, "weight": jnp.ones((rows, 1)), **rest, **places}


def mean(loss, config):
    def of(values, batch):
        total, count = loss(config, ProgramConfig(), values, batch)["loss"]
        return total / count

    return of


def initialise(kind, config):
    return parameters.initialise(kind, config, make_mesh(MeshConfig(data=1), jax.devices()[:1]), 0)


def operations(jaxpr, name):
    """All operations of a program that are called so, those of its loops and calls too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from operations(inner, name)


def training_step(kind, config):
    return jax.make_jaxpr(jax.value_and_grad(mean(KINDS[kind], config)))(initialise(kind, config), batch()).jaxpr


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_product_of_a_float32_model_is_of_float32_factors(kind, stacked):
    """CPUs know no other; TPUs would round factors to bf16 and GPUs to TF32, so it is read off the program."""
    products = list(operations(training_step(kind, dataclasses.replace(MODEL, stacked=stacked)), "dot_general"))
    assert len(products) > 20
    assert {product.params["precision"] for product in products} == {HIGHEST}


def test_the_head_of_a_preference_model_is_float32_in_every_model():
    program = training_step(PreferenceModel, dataclasses.replace(MODEL, dtype="bfloat16"))
    products = list(operations(program, "dot_general"))
    head = [p for p in products if all(operand.aval.dtype == jnp.float32 for operand in p.invars)]
    assert head and {product.params["precision"] for product in head} == {HIGHEST}
    assert all(p.params["precision"] != HIGHEST for p in products if p not in head)


@pytest.mark.parametrize("rows", [1, 2048])
def test_the_gradient_of_an_embedding_does_not_depend_on_how_often_a_token_occurs(rows):
    """Equal rows have the gradient of one of them: a sum in bf16 would stand still after some hundred of them."""
    config = dataclasses.replace(MODEL, dtype="bfloat16", layers=1)
    values = initialise(Decoder, config)

    def gradient(dtype, rows):
        loss = mean(losses.policy_loss, dataclasses.replace(config, dtype=dtype))
        return np.asarray(jax.jit(jax.grad(lambda p: loss(p, batch(rows, 4))))(values)["embedding"])

    exact = gradient("float32", 1)
    np.testing.assert_allclose(gradient("bfloat16", rows), exact, atol=0.03 * np.abs(exact).max())
