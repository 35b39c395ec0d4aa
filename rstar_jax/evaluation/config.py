"""How a policy and a PPM are measured."""

import dataclasses

from rstar_jax.search import SearchConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """search: the test-time search; its `rollouts` are the trajectories of `search_accuracy`.

    samples: independent solutions a problem for the majority vote and pass@k.
    pair_problems: about how many held-out problems are annotated to measure the PPM's pair accuracy.
    frontier_levels: the levels whose mean is a metric's headline; rows with a level are written beside it.
    """

    search: SearchConfig
    samples: int = 8
    pair_problems: int = 60
    frontier_levels: tuple[int, ...] = (2, 3, 4)
