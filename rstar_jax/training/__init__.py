"""Losses, batches, the train step and loop."""

from rstar_jax.training.config import TrainingConfig

__all__ = ["TrainingConfig"]
