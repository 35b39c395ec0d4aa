"""The losses: next-token cross-entropy for the policy, pairwise ranking for the PPM."""

import jax
import jax.numpy as jnp

from rstar_jax.models import attention
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder, PreferenceModel
from rstar_jax.models.parameters import Parameters, bind

Metrics = dict[str, jax.Array]


def policy_loss(
    config: DecoderConfig, parameters: Parameters, batch: dict[str, jax.Array]
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy of the response tokens (section 3.3: prompt and tool output are not learned).

    batch: tokens int[B, T]; learn bool[B, T], whether the token at this position is a target; valid bool[B, T].
    """
    tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    learn = batch["learn"][:, 1:]
    model = bind(Decoder, config, parameters)
    hidden, _ = model(
        tokens, _positions(tokens), attention.causal(attention.causal_mask(batch["valid"][:, :-1], config.window))
    )
    logits = model.logits(hidden)
    target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    entropy = jax.nn.logsumexp(logits, axis=-1) - target_logits
    loss = jnp.sum(jnp.where(learn, entropy, 0.0)) / jnp.maximum(jnp.sum(learn), 1)
    whole = jnp.all((target_logits >= jnp.max(logits, axis=-1)) | ~learn, axis=-1)
    return loss, {"loss": loss, "whole_sequence_accuracy": jnp.mean(whole)}


def preference_loss(
    config: DecoderConfig, parameters: Parameters, batch: dict[str, jax.Array]
) -> tuple[jax.Array, Metrics]:
    """Pairwise ranking loss, equation 4 of the paper: -log sigmoid(r(chosen) - r(rejected)), weighted per pair.

    batch: tokens int[2B, T], the chosen sequences first, then the rejected; valid bool[2B, T]; last int[2B], the
    position at which the score is read; weight float[B], 1 / (positives * negatives) of the pair's node.
    """
    scores = preference_scores(config, parameters, batch)
    chosen, rejected = jnp.split(scores, 2)
    weight = batch["weight"]
    total = jnp.maximum(jnp.sum(weight), 1e-6)
    loss = -jnp.sum(weight * jax.nn.log_sigmoid(chosen - rejected)) / total
    right = jnp.sum(weight * (chosen > rejected)) / total
    size = jnp.mean(jnp.abs(scores))  # beside `PreferenceModel.value_scale`: how far values are saturated
    return loss, {"loss": loss, "batch_pair_accuracy": right, "mean_absolute_score": size}


def preference_scores(config: DecoderConfig, parameters: Parameters, batch: dict[str, jax.Array]) -> jax.Array:
    """Raw scores fp32 [B] of whole sequences, read at `last`."""
    model = bind(PreferenceModel, config, parameters)
    tokens = batch["tokens"]
    attend = attention.causal(attention.causal_mask(batch["valid"], config.window))
    hidden, _ = model.decoder(tokens, _positions(tokens), attend)
    return model.scores(hidden[jnp.arange(tokens.shape[0]), batch["last"]])


def _positions(tokens: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
