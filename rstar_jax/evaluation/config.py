"""How a policy and a PPM are measured."""

import dataclasses

from rstar_jax.decoding import DecodingConfig, Sampling
from rstar_jax.partitioning import MeshConfig
from rstar_jax.search import SearchConfig, VoteConfig
from rstar_jax.verifier import Limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """search: the test-time search.

    trajectories: independent searches a problem, each with a seed of its own (paper: 8, or 16 on AIME and AMC, and 64;
    in the released code each of them is one whole MCTS). vote: how one answer is chosen from theirs.
    samples: independent solutions a problem for the majority vote and pass@k.
    sampling: how tokens are drawn for these samples and in that search.
    pair_problems: about how many held-out problems are annotated to measure the PPM's pair accuracy.
    frontier_levels: the levels whose mean is a metric's headline; rows with a level are written beside it.
    """

    search: SearchConfig
    trajectories: int = 1
    vote: VoteConfig = VoteConfig()
    samples: int = 8
    sampling: Sampling = Sampling()
    pair_problems: int = 60
    frontier_levels: tuple[str, ...] = ("2", "3", "4")

    def __post_init__(self):
        if self.trajectories < 1:
            raise ValueError(f"EvaluationConfig.trajectories must be at least 1, got {self.trajectories}")
        if not all(isinstance(level, str) for level in self.frontier_levels):
            raise ValueError(f"EvaluationConfig.frontier_levels: expected texts, got {self.frontier_levels}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEvaluation:
    """How a checkpoint is measured that was never trained on trajectories.

    few_shot: a file, found as gin files are, whose text stands before each question. dtype: of parameters and
    computation.
    """

    decoding: DecodingConfig
    few_shot: str | None = None
    dtype: str = "bfloat16"
    mesh: MeshConfig = MeshConfig()
    limits: Limits = Limits()
    verifier_workers: int | None = None
