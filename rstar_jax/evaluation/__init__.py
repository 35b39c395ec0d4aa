"""Measures policies and PPMs: accuracy, votes, pass@k, pair accuracy, false positives."""

from rstar_jax.evaluation.accuracy import by_level, grade_answers, greedy_accuracy, sampled_accuracy, search_answers
from rstar_jax.evaluation.config import EvaluationConfig, ModelEvaluation
from rstar_jax.evaluation.pairs import pair_accuracy
from rstar_jax.evaluation.programs import false_positive_share

__all__ = [
    "EvaluationConfig",
    "ModelEvaluation",
    "by_level",
    "false_positive_share",
    "grade_answers",
    "greedy_accuracy",
    "pair_accuracy",
    "sampled_accuracy",
    "search_answers",
]
