"""Problems: the record, and where they come from (TFDS, JSONL, procedural)."""

from rstar_jax.problems.problem import Problem

__all__ = ["Problem"]
