"""What an evolution run is made of."""

import dataclasses
import math

from rstar_jax.decoding import DecodingConfig
from rstar_jax.evaluation import EvaluationConfig, Search
from rstar_jax.models import DecoderConfig
from rstar_jax.partitioning import MeshConfig
from rstar_jax.problems.procedural import ProceduralProblems
from rstar_jax.search import PairConfig, PublishedSelection, SchedulerConfig, SearchConfig
from rstar_jax.training import TrainingConfig
from rstar_jax.verifier import Limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundConfig:
    """One round: search, selection, training.

    search: value_mode 'terminal' in rounds 1 and 2, 'ppm' (with the PPM of the round before) in 3 and 4.
    few_shot: a file, found as gin files are, whose text stands before each question in the round's search, for a policy
        that was never trained on trajectories (released code: `few_shots`, in the bootstrap). Nothing learns it.
    trajectories: the most that one problem gives to the policy's data (paper: 2). pairs: how preference pairs are made;
        a PublishedSelection chooses the trajectories as the released code does, too.
    replay: the share of the policy's batches that are bootstrap examples; the rest are the rounds' own trajectories.
    """

    search: SearchConfig
    policy: TrainingConfig
    ppm: TrainingConfig
    pairs: PairConfig | PublishedSelection = PairConfig()
    few_shot: str | None = None
    trajectories: int = 2
    replay: float = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What every mode with models needs; all that `rstar evaluate` does.

    value_scale: of PPMs that are trained, or do not say their own; a step's value is tanh(score / value_scale). 1 in
        the paper, 5 in the released code. Scores are trained on their differences alone and may grow: tanh of 9 and
        more is 1 in fp32.
    scheduling: of all searches, those of rounds and those of the evaluation.
    """

    decoding: DecodingConfig
    evaluation: EvaluationConfig
    mesh: MeshConfig = MeshConfig()
    limits: Limits = Limits()
    verifier_workers: int | None = None
    value_scale: float = 1.0
    scheduling: SchedulerConfig = SchedulerConfig()
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.value_scale < math.inf:
            raise ValueError(f"{type(self).__name__}.value_scale ({self.value_scale}): expected a number above 0")
        for search in self._searches():
            if search.max_prefix_tokens > self.decoding.max_prefix_tokens:
                raise ValueError(
                    f"SearchConfig.max_prefix_tokens ({search.max_prefix_tokens}): expected at most "
                    f"DecodingConfig.max_prefix_tokens ({self.decoding.max_prefix_tokens})"
                )

    def _searches(self) -> list[SearchConfig]:
        return [own.config for own in self.evaluation.measurements if isinstance(own, Search)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionConfig(WorldConfig):
    """A whole run.

    model: the decoder of a run from random weights; its vocabulary_size is also that of the tokenizer that is trained.
    bootstrap: the training of these on worked examples. `rstar import` puts another model into its place. Every round's
        policy begins from it.
    tail_share: the share of worked examples above level 1 in the bootstrap's batches. There are few of them.
    shards: in how many pieces a round's search is done; a killed run repeats one piece at most.
    """

    model: DecoderConfig
    problems: ProceduralProblems
    bootstrap: TrainingConfig
    rounds: tuple[RoundConfig, ...]
    tail_share: float = 0.15
    shards: int = 4

    def _searches(self) -> list[SearchConfig]:
        return [*(settings.search for settings in self.rounds), *super()._searches()]
