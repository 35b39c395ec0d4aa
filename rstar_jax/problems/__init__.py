"""Problems: the record, and where they come from (files, TFDS, named sets, mixtures of them, procedural)."""

from rstar_jax.problems.problem import Problem

__all__ = ["Problem"]
