"""Measures policies and PPMs: accuracy, votes, pass@k, scaling curves, pair accuracy, false positives."""

from rstar_jax.evaluation.accuracy import by_level, grade_answers, greedy_accuracy, sampled_accuracy
from rstar_jax.evaluation.config import EvaluationConfig, ModelEvaluation
from rstar_jax.evaluation.pairs import pair_accuracy
from rstar_jax.evaluation.programs import false_positive_share
from rstar_jax.evaluation.trajectories import (
    SCALING,
    scaling_curve,
    scaling_rows,
    search_answers,
    search_trees,
)

__all__ = [
    "SCALING",
    "EvaluationConfig",
    "ModelEvaluation",
    "by_level",
    "false_positive_share",
    "grade_answers",
    "greedy_accuracy",
    "pair_accuracy",
    "sampled_accuracy",
    "scaling_curve",
    "scaling_rows",
    "search_answers",
    "search_trees",
]
