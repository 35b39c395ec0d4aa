"""Losses, batches, the train step and loop."""

from rstar_jax.training.config import ProgramConfig, TrainingConfig

__all__ = ["ProgramConfig", "TrainingConfig"]
