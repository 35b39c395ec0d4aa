"""The settings of a tree search, each with the place it comes from."""

import dataclasses

VALUE_MODES = ("terminal", "ppm", "test", "none")
UNVISITED_RULES = ("sibling", "parent", "zero", "infinite")
EXHAUSTION_RULES = ("at_once", "by_level")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How one tree is searched (paper: section 3.2; released code: `config/*.yaml`). Numbers stand in `gin/search/`.

    An answer that the grader cannot decide on is neither right nor wrong: it backs up no value and is in no pair.

    Always: of equal scores the first child is taken (released code), a node is expanded once, equal candidates merge.

    candidates: steps sampled under a node (`n_generate_sample`); it may have fewer children.
    rollouts: descents from the root of one tree (`iterations`).
    max_expansions, max_sampled_tokens: further budgets of one tree, None for none: once so many nodes were expanded,
        or tokens sampled, nothing more is.
    max_depth: the most steps of a trajectory, its answer included (`max_depth`).
    exploration: c of UCT (`c_puct`; paper: 2).
    value_mode: where values come from.
        "terminal": +1 or -1 at answers by the ground truth (paper: terminal-guided annotation, Eq. 2).
        "ppm": the same, and the PPM gives each new step a first value (paper: PPM-augmented annotation).
        "test": the PPM gives steps their first value and answers theirs; the ground truth is never seen.
        "none": nobody judges. With one candidate this is greedy decoding (released code: `eval.py`).
    max_consecutive_errors: a path ends after so many steps in a row whose code failed (`errors_threshold`).
    max_prefix_tokens: the most tokens of a path, prompt and outputs included (`max_model_len`). Longer ones end as
        failed.
    beam_width: None for MCTS; else the width of a step beam search (`beam.py`; `step_beam_width`: 8), in which
        `rollouts` and `exploration` have no say.
    first_answer_only: whether an expansion that answers keeps its first answer and nothing else. The released code does
        so; the paper does not say it.
    unvisited: what a child without visits scores.
        "sibling": 0, with the exploration term of a child visited as often as its siblings were on average, failed ones
            and unvisited ones aside. Ours: the place of a sibling that was right as often as wrong, so that the untried
            come before what was always wrong. `tests/benchmarks/search_rules.py` compares the four.
        "parent": the Q of its parent, with the exploration term of a child visited once (first-play urgency; Gelly and
            Wang 2006).
        "zero": 0, without an exploration term (released code: `mcts_node.py`, deliberately, issue 32 there). A visited
            child with Q = -1 overtakes it from the second visit of the parent on.
        "infinite": it comes first (UCB1).
    exhaustion: when a node with nothing left to expand below it is passed by.
        "at_once": as soon as that is so: each rollout expands something.
        "by_level": when a rollout comes to it and finds no child to go on with, and ends (released code).
    rollouts_in_flight: rollouts of one tree that wait for expansions at the same time. Each counts as a visit worth -1
        to the others (virtual loss; Chaslot et al. 2008) while it lasts. 1 is the exact search.
    published_faults: whether steps are read with the faults of the released code, so that its trees can be reproduced:
        see `published.py`.
    """

    candidates: int
    rollouts: int
    max_depth: int
    exploration: float
    value_mode: str
    max_consecutive_errors: int
    max_prefix_tokens: int
    first_answer_only: bool = False
    beam_width: int | None = None
    unvisited: str = "sibling"
    exhaustion: str = "at_once"
    rollouts_in_flight: int = 1
    published_faults: bool = False
    max_expansions: int | None = None
    max_sampled_tokens: int | None = None

    def __post_init__(self):
        for name, known in (
            ("value_mode", VALUE_MODES),
            ("unvisited", UNVISITED_RULES),
            ("exhaustion", EXHAUSTION_RULES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"SearchConfig.{name} must be one of {known}, got {getattr(self, name)!r}")
        for name in (
            "candidates",
            "rollouts",
            "max_depth",
            "max_consecutive_errors",
            "max_prefix_tokens",
            "rollouts_in_flight",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"SearchConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_expansions", "max_sampled_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"SearchConfig.{name} must be at least 1, or None, got {getattr(self, name)}")
        if self.exploration < 0:
            raise ValueError(f"SearchConfig.exploration must not be negative, got {self.exploration}")
        if self.rollouts_in_flight > 1 and self.published_faults:
            raise ValueError(
                f"SearchConfig.rollouts_in_flight must be 1 with published_faults, got {self.rollouts_in_flight}"
            )
        if self.beam_width is not None and (self.beam_width < 1 or not self.needs_scorer):
            raise ValueError(
                f"SearchConfig.beam_width must be at least 1, and value_mode 'ppm' or 'test', for the PPM chooses the "
                f"beam; got {self.beam_width} and {self.value_mode!r}"
            )

    @property
    def sees_answers(self) -> bool:
        """Whether the search may look at the ground truth."""
        return self.value_mode in ("terminal", "ppm")

    @property
    def needs_scorer(self) -> bool:
        """Whether the search asks the PPM."""
        return self.value_mode in ("ppm", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """How many trees are searched together, and how long for what.

    in_flight: trees that are searched at the same time; more of them fill batches better and hold more memory.
    patience: seconds for which a turn waits for code, and for grades; a tree whose own take longer steps aside and
        holds up nobody. None: as long as they take, so that who shares a batch, and so the last bit of every value,
        never depends on it.
    seconds: of all searches of a phase or of a measurement in one process, None for no limit: then no node is expanded
        any more, and trees end with what was found.
    """

    in_flight: int = 256
    patience: float | None = 1.0
    seconds: float | None = None

    def __post_init__(self):
        if self.in_flight < 1:
            raise ValueError(f"SchedulerConfig.in_flight must be at least 1, got {self.in_flight}")
        for name in ("patience", "seconds"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"SchedulerConfig.{name} must not be negative, got {getattr(self, name)}")

    def after(self, seconds: float) -> "SchedulerConfig":
        """The same, when so many of its seconds have passed."""
        return self if self.seconds is None else dataclasses.replace(self, seconds=max(self.seconds - seconds, 0.0))
