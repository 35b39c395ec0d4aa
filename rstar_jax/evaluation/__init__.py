"""Measures policies and PPMs: accuracy, votes, pass@k, scaling curves, pair accuracy, false positives."""

from rstar_jax.evaluation.accuracy import (
    SCALING,
    differences,
    grade_answers,
    headline_problems,
    mean_and_error,
    summarise,
)
from rstar_jax.evaluation.config import EvaluationConfig, minuends
from rstar_jax.evaluation.measure import measure
from rstar_jax.evaluation.measurements import Bench, EqualTokens, Greedy, Measurement, Samples, Search
from rstar_jax.evaluation.pairs import pair_accuracy
from rstar_jax.evaluation.programs import wrong_programs
from rstar_jax.evaluation.trajectories import scaling_curve, search_answers, search_trees

__all__ = [
    "SCALING",
    "Bench",
    "EqualTokens",
    "EvaluationConfig",
    "Greedy",
    "Measurement",
    "Samples",
    "Search",
    "differences",
    "grade_answers",
    "headline_problems",
    "mean_and_error",
    "measure",
    "minuends",
    "pair_accuracy",
    "scaling_curve",
    "search_answers",
    "search_trees",
    "summarise",
    "wrong_programs",
]
