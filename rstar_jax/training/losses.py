"""The losses, as sums and counts: right under accumulation, packing and shards, where a mean of means is not.

policy_loss: next-token cross-entropy. preference_loss: pairwise ranking, of the PPM (steps and trajectories) and of an
ORM (trajectories alone). value_loss: regression on Q (PQM).

Rows hold one sequence or several: segments int [B, T] from 1 (0: padding), positions int [B, T] in the sequence, and,
where sequences end in branches, branches int [B, T] (`attention.Layout`). noise uint32 [B], if it is there: a seed a
row for dropout.
"""

import jax
import jax.numpy as jnp

from rstar_jax.models import attention, splash
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder, PreferenceModel
from rstar_jax.models.parameters import Parameters, bind
from rstar_jax.training.config import ProgramConfig
from rstar_jax.training.cross_entropy import cross_entropy

Batch = dict[str, jax.Array]
Sums = dict[str, tuple[jax.Array, jax.Array]]  # {metric: (sum, of how much)}; "loss" is the one that is minimised


def policy_loss(model: DecoderConfig, program: ProgramConfig, parameters: Parameters, batch: Batch) -> Sums:
    """Cross-entropy of the tokens to learn (section 3.3: prompt and tool output are not learned).

    batch: tokens int [B, T]; learn bool [B, T], whether the token at this position is a target; and the rows' layout.
    """
    decoder = bind(Decoder, model, parameters)
    hidden = _hidden(decoder, model, program, batch)
    targets = jnp.roll(batch["tokens"], -1, axis=1)
    learn = jnp.roll(batch["learn"], -1, axis=1).at[:, -1].set(False)
    head = parameters["embedding" if model.tied else "head"]
    loss, right = cross_entropy(hidden, head, targets, learn, program.loss_chunk)
    count = jnp.sum(learn, dtype=jnp.float32)
    return {"loss": (loss, count), "token_accuracy": (right, count)}


def preference_loss(model: DecoderConfig, program: ProgramConfig, parameters: Parameters, batch: Batch) -> Sums:
    """Pairwise ranking loss, equation 4 of the paper: -log sigmoid(r(chosen) - r(rejected)), weighted per pair.

    batch: tokens int [B, T] and the rows' layout; chosen, rejected int [B, P], where in the row the scores of a pair
    are read; weight float [B, P], 1 / (positives * negatives) of the pair's node, 0 where there is no pair.
    """
    both = jnp.concatenate([batch["chosen"], batch["rejected"]], axis=1)
    scores = preference_scores(model, program, parameters, batch, both)
    chosen, rejected = jnp.split(scores, 2, axis=1)
    weight = batch["weight"]
    total, there = jnp.sum(weight), jnp.sum(weight > 0, dtype=jnp.float32)
    size = jnp.where(weight > 0, (jnp.abs(chosen) + jnp.abs(rejected)) / 2, 0.0)
    return {
        "loss": (-jnp.sum(weight * jax.nn.log_sigmoid(chosen - rejected)), total),
        "batch_pair_accuracy": (jnp.sum(weight * (chosen > rejected)), total),
        # Beside `PreferenceModel.value_scale`: how far values are saturated.
        "mean_absolute_score": (jnp.sum(size), there),
    }


def value_loss(model: DecoderConfig, program: ProgramConfig, parameters: Parameters, batch: Batch) -> Sums:
    """Squared error of tanh(score / scale) and Q at the ends of steps: the PQM of the paper's Table 8.

    batch: tokens int [B, T] and the rows' layout; at int [B, P], where in the row a step ends; value float [B, P], its
    Q in -1 to 1; weight float [B, P], 0 where there is none.
    """
    scores = preference_scores(model, program, parameters, batch, batch["at"])
    weight = batch["weight"]
    values = jnp.tanh(scores / jax.lax.stop_gradient(parameters["value_scale"]))
    total = jnp.sum(weight)
    return {
        "loss": (jnp.sum(weight * jnp.square(values - batch["value"])), total),
        "mean_absolute_score": (
            jnp.sum(jnp.where(weight > 0, jnp.abs(scores), 0.0)),
            jnp.sum(weight > 0, dtype=jnp.float32),
        ),
    }


def preference_scores(
    model: DecoderConfig, program: ProgramConfig, parameters: Parameters, batch: Batch, at: jax.Array
) -> jax.Array:
    """Raw scores fp32 [B, P] read at these places [B, P] of each row."""
    ppm = bind(PreferenceModel, model, parameters)
    hidden = _hidden(ppm.decoder, model, program, batch)
    return ppm.scores(jnp.take_along_axis(hidden, at[..., None], axis=1))


def _hidden(decoder: Decoder, model: DecoderConfig, program: ProgramConfig, batch: Batch) -> jax.Array:
    rows = attention.Layout(batch["segments"], batch["positions"], batch.get("branches"))
    kinds = {"xla": attention.whole, "splash": splash.whole}
    attend = kinds[program.attention](rows, model.window, program.attention_block)
    noise = jax.vmap(jax.random.key)(batch["noise"]) if "noise" in batch else None
    return decoder(batch["tokens"], batch["positions"], attend, remat=program.remat, noise=noise)[0]
