"""The optimizers and their learning rate."""

import math

import jax
import optax

from rstar_jax.models.decoder import LORA_A, LORA_B
from rstar_jax.models.parameters import Parameters
from rstar_jax.training.config import TrainingConfig

# Which axes of a (stacked) matrix its gradient is orthogonalised over: (reduction axes, output axes).
_MATRICES = {
    "query": (1, (2, 3)),
    "key": (1, (2, 3)),
    "value": (1, (2, 3)),
    "out": ((1, 2), 3),
    "gate": (1, 2),
    "up": (1, 2),
    "down": (1, 2),
}
_TABLES = ("embedding", "head")


def _name(path) -> str:
    return path[-1].key


def _muon_dimensions(parameters: Parameters):
    def of(path, leaf):
        if _name(path) in _MATRICES and leaf.ndim > 2:
            return optax.contrib.MuonDimensionNumbers(*_MATRICES[_name(path)])
        return None

    return jax.tree_util.tree_map_with_path(of, parameters)


def _decays(parameters: Parameters):
    """Marks matrices, adapters and tables: norms, biases and a PPM's head are not drawn to zero."""

    def of(path, leaf) -> bool:
        name = _name(path)
        matrix = name in _MATRICES and leaf.ndim > 2
        return matrix or name in _TABLES or name.endswith((LORA_A, LORA_B))

    return jax.tree_util.tree_map_with_path(of, parameters)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, then decay."""
    warmed = min((step + 1) / max(config.warmup_steps, 1), 1.0)
    progress = min(max(step - config.warmup_steps, 0) / max(config.steps - config.warmup_steps, 1), 1.0)
    shape = (1 + math.cos(math.pi * progress)) / 2 if config.schedule == "cosine" else 1 - progress
    return config.learning_rate * warmed * (config.final_fraction + (1 - config.final_fraction) * shape)


def make_optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """Muon (arXiv 2502.16982: updates scaled to AdamW's RMS, so one learning rate serves both) or AdamW.

    The learning rate is 1: the train step scales the updates, so that runs of different length share one program.
    """
    if config.optimizer == "muon":
        update = optax.contrib.muon(
            1.0,
            adam_b2=config.beta2,
            weight_decay=config.weight_decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_muon_dimensions,
        )
    else:
        update = optax.adamw(1.0, b2=config.beta2, weight_decay=config.weight_decay, mask=_decays)
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip), update)
