"""What an evolution run is made of."""

import dataclasses
import math
from typing import Any, Literal

from rstar_jax.decoding import DecodingConfig
from rstar_jax.evaluation import EvaluationConfig, Search
from rstar_jax.models import DecoderConfig
from rstar_jax.partitioning import MeshConfig
from rstar_jax.problems.sources import Source
from rstar_jax.search import PairConfig, PublishedSelection, SchedulerConfig, SearchConfig
from rstar_jax.training import TrainingConfig
from rstar_jax.verifier import Limits

DIFFICULTIES = ("easy", "medium", "hard")
_ROOMS = ("max_prefix_tokens", "max_step_tokens", "max_block_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A causal language model that somebody has trained: the base of a run, or who annotates in a round.

    source: a Hugging Face folder, or a name on the hub. dtype: of its parameters; None: as they are stored.
    few_shot: a file, found as gin files are, whose text stands before each question, for a model that was never trained
        on trajectories (released code: `few_shots`, in the bootstrap). Step markers that its tokenizer does not know
        are text then. Nothing learns the file. Of an annotator alone.
    """

    source: str
    dtype: Literal["bfloat16", "float32"] | None = None
    few_shot: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scratch:
    """A base from random weights.

    model: its vocabulary_size is also that of the tokenizer that is trained. training: on `examples`, problems whose
        solutions are whole trajectories. tail_share: the share of examples above level 1 in the batches; there are few.
    questions: problems whose questions the tokenizer reads as well.
    """

    model: DecoderConfig
    training: TrainingConfig
    examples: Source
    questions: tuple[Source, ...] = ()
    tail_share: float = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """A search of the problems of a round; those of a round follow each other.

    search: value_mode 'terminal' in rounds 1 and 2, 'ppm' (with the PPM of the round before) in 3 and 4.
    only: the problems that are searched, by what the passes before have found: 'easy' if all answers were right, 'hard'
        if none was, else 'medium'. trees: of each problem, each with a seed of its own, as in every pass.
    """

    search: SearchConfig
    only: tuple[str, ...] = DIFFICULTIES
    trees: int = 1

    def __post_init__(self):
        if not self.only or set(self.only) - set(DIFFICULTIES):
            raise ValueError(f"Pass.only: expected some of {DIFFICULTIES}, got {self.only}")
        if self.trees < 1:
            raise ValueError(f"Pass.trees must be at least 1, got {self.trees}")

    @property
    def asks_all(self) -> bool:
        """Whether it searches every problem."""
        return set(self.only) == set(DIFFICULTIES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One round: search, selection, training.

    annotator: who searches; None: the policy of the round before.
    problems: None: the run's.
    trajectories: the most that one problem gives to the policy's data, the best of all its trees (paper: 2).
    pairs: how preference pairs are made; a PublishedSelection chooses the trajectories as the released code does, too.
    learn_from: the data of this round, or of all rounds up to it.
    replay: the share of the policy's batches that are examples of a Scratch base; the rest are trajectories.
    """

    passes: tuple[Pass, ...]
    policy: TrainingConfig
    ppm: TrainingConfig
    annotator: Checkpoint | None = None
    problems: Source | None = None
    pairs: PairConfig | PublishedSelection = PairConfig()
    trajectories: int = 2
    learn_from: Literal["round", "all"] = "all"
    replay: float = 0.0

    def __post_init__(self):
        if not self.passes:
            raise ValueError("Round.passes: expected at least one Pass")
        if self.learn_from not in ("round", "all"):
            raise ValueError(f"Round.learn_from must be 'round' or 'all', got {self.learn_from!r}")
        if not 0 <= self.replay <= 1:
            raise ValueError(f"Round.replay must lie in [0, 1], got {self.replay}")
        if self.annotator is not None and self.needs_ppm:
            raise ValueError(
                "Round.annotator: expected None where a pass is led by a PPM, which judges the steps of its own policy"
            )

    @property
    def needs_ppm(self) -> bool:
        """Whether a pass asks the PPM of the round before."""
        return any(own.search.needs_scorer for own in self.passes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One training by command, on any model and rows.

    policy: how `rstar train_policy` trains; ppm: how `train_ppm`, `train_orm` and `train_pqm` do.
    mesh: of all devices, those of other processes too. value_scale: as of WorldConfig. dtype: in which the model is
    read; None: as it is stored. held_out: the share of the examples of which the loss is measured, and nothing learned.
    """

    policy: TrainingConfig | None = None
    ppm: TrainingConfig | None = None
    mesh: MeshConfig = MeshConfig()
    value_scale: float = 1.0
    dtype: Literal["bfloat16", "float32"] | None = None
    held_out: float = 0.0

    def __post_init__(self):
        if not 0 <= self.held_out < 1:
            raise ValueError(f"TrainingRun.held_out must lie in [0, 1), got {self.held_out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Problems on which a run is measured, as its `evaluation` says; nothing is trained on them.

    name: of its numbers and its folder. evaluation: None: the run's. limit: the first so many problems.
    rounds: after which the policy is measured greedily; all else is measured after the last.
    """

    name: str
    problems: Source
    evaluation: EvaluationConfig | None = None
    limit: int | None = None
    rounds: Literal["every", "last"] = "every"

    def __post_init__(self):
        if not self.name.replace("_", "").replace("-", "").replace(".", "").isalnum():
            raise ValueError(f"Benchmark.name: expected letters, digits, '_', '-' and '.', got {self.name!r}")
        if self.rounds not in ("every", "last"):
            raise ValueError(f"Benchmark.rounds must be 'every' or 'last', got {self.rounds!r}")


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
    grader_workers: int = 1
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

    @property
    def decisive(self) -> dict[str, Any]:
        """What every result depends on; the rest of decoding is how fast it is had."""
        return {name: getattr(self.decoding, name) for name in _ROOMS} | {"seed": self.seed}

    def _searches(self) -> list[SearchConfig]:
        return [own.config for own in self.evaluation.measurements if isinstance(own, Search)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionConfig(WorldConfig):
    """A whole run.

    base: what every round's policy begins from. `rstar import` puts another model into its place.
    problems: of rounds that have none of their own.
    benchmarks: on the first of them the PPM's pairs are measured, too.
    training_mesh: on which models are trained, spread over many devices; they decode on few. None: on `mesh`.
    control: whether a policy is trained on the examples of a Scratch base alone, as long as that of the last round, to
        show what the rounds' data are worth.
    shards: in how many pieces the problems of a round are searched and selected. A killed process repeats those that it
        was at; several processes share them.
    overlap: whether the next piece is begun before the last has ended, so that batches stay full. Then who shares a
        batch, and with it the last bits of numbers, depends on how many processes there are.
    """

    base: Checkpoint | Scratch
    rounds: tuple[Round, ...]
    problems: Source | None = None
    benchmarks: tuple[Benchmark, ...] = ()
    training_mesh: MeshConfig | None = None
    control: bool = False
    shards: int = 4
    overlap: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not self.rounds:
            raise ValueError("EvolutionConfig.rounds: expected at least one Round")
        if self.shards < 1:
            raise ValueError(f"EvolutionConfig.shards must be at least 1, got {self.shards}")
        if self.rounds[0].needs_ppm:
            raise ValueError("EvolutionConfig.rounds: the first round has no PPM yet, expected value_mode 'terminal'")
        for number, own in enumerate(self.rounds, start=1):
            if own.problems is None and self.problems is None:
                raise ValueError(f"EvolutionConfig: round {number} has no problems, and the run has none")
        if not isinstance(self.base, Scratch) and (self.control or any(own.replay for own in self.rounds)):
            raise ValueError("EvolutionConfig: control and Round.replay need the examples of a Scratch base")
        if isinstance(self.base, Checkpoint) and self.base.few_shot is not None:
            raise ValueError("EvolutionConfig.base: expected no few_shot; it is for Round.annotator and evaluation")
        names = [own.name for own in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError(f"EvolutionConfig.benchmarks: expected names of their own, got {', '.join(names)}")

    def measured(self, benchmark: Benchmark) -> EvaluationConfig:
        """How a benchmark is measured."""
        return benchmark.evaluation or self.evaluation

    def _searches(self) -> list[SearchConfig]:
        passes = [own.search for settings in self.rounds for own in settings.passes]
        measured = [own for benchmark in self.benchmarks for own in self.measured(benchmark).measurements]
        return [*passes, *(own.config for own in measured if isinstance(own, Search)), *super()._searches()]
