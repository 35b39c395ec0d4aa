"""The losses against their definitions, and what they must not learn from."""

import jax
import jax.numpy as jnp
import numpy as np

from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, attention, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import ProgramConfig, batches, losses
from rstar_jax.trajectory import markers, steps
from rstar_jax.trajectory.tokenizer import Tokenizer

RESPONSE = (
    "<code>\na = 1 + 2\n<end_of_step>\nprint(a)\n<end_of_code>"
    "\n<output>3<end_of_output>\n<answer>\\boxed{3}<end_of_answer>"
)
TOKENIZER = Tokenizer.train([steps.prompt("1 + 2") + RESPONSE], 300)
MODEL = DecoderConfig(vocabulary_size=len(TOKENIZER), layers=1, embed=16, heads=2, kv_heads=1, head=8, mlp=16)
PROGRAM = ProgramConfig()


def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


def policy_loss(policy, batch):
    total, count = losses.policy_loss(MODEL, PROGRAM, policy, batch)["loss"]
    return total / jnp.maximum(count, 1.0)


def test_only_what_the_policy_writes_is_learned():
    example = batches.policy_example(TOKENIZER, "1 + 2", RESPONSE)
    learned = TOKENIZER.decode(example.tokens[example.learn])
    assert learned == RESPONSE.replace("\n<output>3<end_of_output>", "") + markers.END_OF_TEXT
    assert TOKENIZER.decode(example.tokens) == steps.prompt("1 + 2") + RESPONSE + markers.END_OF_TEXT


def test_masked_tokens_have_no_influence_on_the_loss():
    policy = parameters.initialise(Decoder, MODEL, mesh(), 0)
    example = batches.policy_example(TOKENIZER, "1 + 2", RESPONSE)
    batch = batches.policy_batch([example], (96,))
    padded = {**batch, "tokens": np.where(batch["segments"] > 0, batch["tokens"], 7)}
    assert float(policy_loss(policy, padded)) == float(policy_loss(policy, batch))
    nothing = {**batch, "learn": np.zeros_like(batch["learn"])}
    gradients = jax.grad(policy_loss)(policy, nothing)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(gradients))


def test_policy_loss_is_the_mean_cross_entropy_of_learned_tokens():
    policy = parameters.initialise(Decoder, MODEL, mesh(), 0)
    batch = batches.policy_batch([batches.policy_example(TOKENIZER, "1 + 2", RESPONSE)], (96,))
    model = parameters.bind(Decoder, MODEL, policy)
    tokens = batch["tokens"]
    rows = attention.layout(jnp.asarray(batch["segments"] > 0))
    hidden, _ = model(tokens, jnp.arange(tokens.shape[1])[None], attention.whole(rows))
    logits = np.asarray(model.logits(hidden))[0]
    learned = [i for i in range(tokens.shape[1] - 1) if batch["learn"][0, i + 1]]
    targets = [batch["tokens"][0, i + 1] for i in learned]
    logprobs = np.asarray(jax.nn.log_softmax(logits))[learned, targets]
    sums = losses.policy_loss(MODEL, PROGRAM, policy, batch)
    np.testing.assert_allclose(sums["loss"], (-logprobs.sum(), len(learned)), rtol=1e-5)
    right = logits[learned].argmax(-1) == targets
    np.testing.assert_allclose(sums["token_accuracy"], (right.sum(), len(learned)))


def test_preference_loss_is_equation_4():
    ppm = parameters.initialise(PreferenceModel, MODEL, mesh(), 0)
    ppm["value"] = jax.random.normal(jax.random.key(1), ppm["value"].shape)
    pairs = [
        batches.preference_example(TOKENIZER, steps.prompt("1"), [("<code>\na = 1", "<code>\na = 2", 0.25)]),
        batches.preference_example(TOKENIZER, steps.prompt("22"), [("\nprint(a)", "\nprint(a + 1)", 1.0)]),
    ]
    batch = batches.preference_batch(pairs, (96,))
    chosen, rejected = (
        np.asarray(losses.preference_scores(MODEL, PROGRAM, ppm, batch, batch[side]))[:, 0]
        for side in ("chosen", "rejected")
    )
    each, right = np.log1p(np.exp(rejected - chosen)), chosen > rejected
    sums = losses.preference_loss(MODEL, PROGRAM, ppm, batch)
    np.testing.assert_allclose(sums["loss"], (0.25 * each[0] + each[1], 1.25), rtol=1e-5)
    np.testing.assert_allclose(sums["batch_pair_accuracy"], (0.25 * right[0] + right[1], 1.25))
    np.testing.assert_allclose(sums["mean_absolute_score"], (np.abs([chosen, rejected]).sum() / 2, 2.0), rtol=1e-5)


def test_value_loss_is_the_squared_error_of_values():
    pqm = parameters.initialise(PreferenceModel, MODEL, mesh(), 0)
    pqm["value"] = jax.random.normal(jax.random.key(1), pqm["value"].shape)
    pqm["value_scale"] = jnp.float32(2.0)
    worth = [("<code>\na = 1 + 2\n<end_of_step>", 0.5), ("\nprint(a)\n<end_of_code>", -1.0)]
    example = batches.value_example(TOKENIZER, steps.prompt("1 + 2"), worth)
    texts = [TOKENIZER.decode(example.tokens[: end + 1].tolist()) for end in example.ends]
    whole = [steps.prompt("1 + 2") + "".join(text for text, _ in worth[:count]) for count in (1, 2)]
    assert texts == whole
    batch = batches.value_batch([example], (96,))
    scores = np.asarray(losses.preference_scores(MODEL, PROGRAM, pqm, batch, batch["at"]))[0, :2]
    sums = losses.value_loss(MODEL, PROGRAM, pqm, batch)
    np.testing.assert_allclose(sums["loss"], (np.square(np.tanh(scores / 2) - [0.5, -1.0]).sum(), 2.0), rtol=1e-5)


def test_a_score_is_read_at_the_last_token_alone():
    ppm = parameters.initialise(PreferenceModel, MODEL, mesh(), 0)
    ppm["value"] = jnp.ones_like(ppm["value"])
    pair = batches.preference_example(TOKENIZER, steps.prompt("1"), [("<code>\na = 1", "<code>\na = 2 + 2", 1.0)])
    short, long = (
        losses.preference_loss(MODEL, PROGRAM, ppm, batches.preference_batch([pair], (length,))) for length in (64, 128)
    )
    np.testing.assert_allclose(short["loss"], long["loss"], rtol=1e-5)
    np.testing.assert_allclose(short["mean_absolute_score"], long["mean_absolute_score"], rtol=1e-5)


def test_a_fresh_ppm_prefers_nothing():
    policy = parameters.initialise(Decoder, MODEL, mesh(), 0)
    ppm = parameters.preference_from_policy(MODEL, policy, mesh())
    pair = batches.preference_example(TOKENIZER, steps.prompt("1"), [("a", "b", 1.0)])
    sums = losses.preference_loss(MODEL, PROGRAM, ppm, batches.preference_batch([pair], (64,)))
    np.testing.assert_allclose(sums["loss"], (np.log(2.0), 1.0), rtol=1e-6)
