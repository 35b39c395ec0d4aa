"""The losses against their definitions, and what they must not learn from."""

import jax
import jax.numpy as jnp
import numpy as np

from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import batches, losses
from rstar_jax.trajectory import markers, steps
from rstar_jax.trajectory.tokenizer import Tokenizer

RESPONSE = (
    "<code>\na = 1 + 2\n<end_of_step>\nprint(a)\n<end_of_code>"
    "\n<output>3<end_of_output>\n<answer>\\boxed{3}<end_of_answer>"
)
TOKENIZER = Tokenizer.train([steps.prompt("1 + 2") + RESPONSE], 300)
MODEL = DecoderConfig(vocabulary_size=len(TOKENIZER), layers=1, embed=16, heads=2, kv_heads=1, head=8, mlp=16)


def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


def test_only_what_the_policy_writes_is_learned():
    example = batches.policy_example(TOKENIZER, "1 + 2", RESPONSE)
    learned = TOKENIZER.decode(example.tokens[example.learn])
    assert learned == RESPONSE.replace("\n<output>3<end_of_output>", "") + markers.END_OF_TEXT
    assert TOKENIZER.decode(example.tokens) == steps.prompt("1 + 2") + RESPONSE + markers.END_OF_TEXT


def test_masked_tokens_have_no_influence_on_the_loss():
    policy = parameters.initialise(Decoder, MODEL, mesh(), 0)
    example = batches.policy_example(TOKENIZER, "1 + 2", RESPONSE)
    batch = batches.policy_batch([example], (96,))
    loss, _ = losses.policy_loss(MODEL, policy, batch)
    padded = {**batch, "tokens": np.where(batch["valid"], batch["tokens"], 7)}
    assert float(losses.policy_loss(MODEL, policy, padded)[0]) == float(loss)
    nothing = {**batch, "learn": np.zeros_like(batch["learn"])}
    gradients = jax.grad(lambda p: losses.policy_loss(MODEL, p, nothing)[0])(policy)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(gradients))


def test_policy_loss_is_the_mean_cross_entropy_of_learned_tokens():
    policy = parameters.initialise(Decoder, MODEL, mesh(), 0)
    batch = batches.policy_batch([batches.policy_example(TOKENIZER, "1 + 2", RESPONSE)], (96,))
    from rstar_jax.models import attention

    model = parameters.bind(Decoder, MODEL, policy)
    tokens = batch["tokens"][:, :-1]
    positions = jnp.arange(tokens.shape[1])[None]
    hidden, _ = model(tokens, positions, attention.causal(attention.causal_mask(batch["valid"][:, :-1])))
    logprobs = np.asarray(jax.nn.log_softmax(model.logits(hidden)))[0]
    wanted = [-logprobs[i, batch["tokens"][0, i + 1]] for i in range(tokens.shape[1]) if batch["learn"][0, i + 1]]
    assert abs(float(losses.policy_loss(MODEL, policy, batch)[0]) - np.mean(wanted)) < 1e-5


def test_preference_loss_is_equation_4():
    ppm = parameters.initialise(PreferenceModel, MODEL, mesh(), 0)
    ppm["value"] = jax.random.normal(jax.random.key(1), ppm["value"].shape)
    pairs = [
        batches.preference_example(TOKENIZER, steps.prompt("1"), "<code>\na = 1", "<code>\na = 2", 0.25),
        batches.preference_example(TOKENIZER, steps.prompt("22"), "\nprint(a)", "\nprint(a + 1)", 1.0),
    ]
    batch = batches.preference_batch(pairs, (96,))
    scores = np.asarray(losses.preference_scores(MODEL, ppm, batch))
    each = np.log1p(np.exp(-(scores[:2] - scores[2:])))
    loss, metrics = losses.preference_loss(MODEL, ppm, batch)
    assert abs(float(loss) - (0.25 * each[0] + each[1]) / 1.25) < 1e-5
    right = scores[:2] > scores[2:]
    assert abs(float(metrics["batch_pair_accuracy"]) - (0.25 * right[0] + right[1]) / 1.25) < 1e-6
    assert abs(float(metrics["mean_absolute_score"]) - np.abs(scores).mean()) < 1e-5


def test_a_score_is_read_at_the_last_token_alone():
    ppm = parameters.initialise(PreferenceModel, MODEL, mesh(), 0)
    ppm["value"] = jnp.ones_like(ppm["value"])
    pair = batches.preference_example(TOKENIZER, steps.prompt("1"), "<code>\na = 1", "<code>\na = 2 + 2", 1.0)
    short = batches.preference_batch([pair], (64,))
    long = batches.preference_batch([pair], (128,))
    np.testing.assert_allclose(
        losses.preference_scores(MODEL, ppm, short), losses.preference_scores(MODEL, ppm, long), atol=1e-5
    )


def test_a_fresh_ppm_prefers_nothing():
    policy = parameters.initialise(Decoder, MODEL, mesh(), 0)
    ppm = parameters.preference_from_policy(MODEL, policy, mesh())
    pair = batches.preference_example(TOKENIZER, steps.prompt("1"), "a", "b", 1.0)
    loss, _ = losses.preference_loss(MODEL, ppm, batches.preference_batch([pair], (64,)))
    assert abs(float(loss) - np.log(2.0)) < 1e-6
