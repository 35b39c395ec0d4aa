"""The settings of a tree search, each with the place it comes from."""

import dataclasses

VALUE_MODES = ("terminal", "ppm", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How one tree is searched (paper: section 3.2; released code: `config/*.yaml`). Numbers stand in `gin/search/`.

    candidates: steps sampled under a node (`n_generate_sample`). Equal texts merge: a node may have fewer children.
    rollouts: descents from the root of one tree (`iterations`).
    max_depth: the most steps of a trajectory, its answer included (`max_depth`).
    exploration: c of UCT (`c_puct`; paper: 2).
    value_mode: where values come from.
        "terminal": +1 or -1 at answers by the ground truth (paper: terminal-guided annotation, Eq. 2).
        "ppm": the same, and the PPM gives each new step a first value (paper: PPM-augmented annotation).
        "test": the PPM gives steps their first value and answers theirs; the ground truth is never seen.
    max_consecutive_errors: a path ends after so many steps in a row whose code failed (`errors_threshold`).
    max_prefix_tokens: the most tokens of a path, prompt and outputs included (`max_model_len`). Longer ones end as
        failed.
    beam_width: None for MCTS; else the width of a step beam search (`beam.py`; `step_beam_width`: 8), in which
        `rollouts` and `exploration` have no say.
    first_answer_only: whether an expansion that answers keeps its first answer and nothing else. The released code does
        so; the paper does not say it.
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

    def __post_init__(self):
        if self.value_mode not in VALUE_MODES:
            raise ValueError(f"SearchConfig.value_mode must be one of {VALUE_MODES}, got {self.value_mode!r}")
        for name in ("candidates", "rollouts", "max_depth", "max_consecutive_errors", "max_prefix_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"SearchConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.beam_width is not None and (self.beam_width < 1 or not self.needs_scorer):
            raise ValueError(
                f"SearchConfig.beam_width must be at least 1, and value_mode 'ppm' or 'test', for the PPM chooses the "
                f"beam; got {self.beam_width} and {self.value_mode!r}"
            )

    @property
    def sees_answers(self) -> bool:
        """Whether the search may look at the ground truth."""
        return self.value_mode != "test"

    @property
    def needs_scorer(self) -> bool:
        """Whether the search asks the PPM."""
        return self.value_mode != "terminal"
