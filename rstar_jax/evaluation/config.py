"""What is measured of a policy and a PPM."""

import dataclasses
from collections.abc import Sequence

from rstar_jax.evaluation.measurements import EqualTokens, Greedy, Measurement, Search


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """measurements: in their order, each with a name of its own.

    headline_levels: levels whose problems have a mean of their own beside that of all; in a run samples and searches
        are made of their problems alone.
    few_shot: a file, found as gin files are, whose text stands before each question: for a policy that was never
        trained on trajectories. Where its tokenizer does not know the step markers, it writes them as text.
    dtype: of parameters and computation; None: as they are stored.
    piece: how many problems are answered together. Their rows are written then: who is killed loses as many at most.
    pair_problems: about how many held-out problems of a run are annotated to measure the PPM's pair accuracy.
    """

    measurements: tuple[Measurement, ...] = (Greedy(),)
    headline_levels: tuple[str, ...] = ()
    few_shot: str | None = None
    dtype: str | None = None
    piece: int = 256
    pair_problems: int = 60

    def __post_init__(self):
        if not all(isinstance(level, str) for level in self.headline_levels):
            raise ValueError(f"EvaluationConfig.headline_levels: expected texts, got {self.headline_levels}")
        if self.piece < 1:
            raise ValueError(f"EvaluationConfig.piece must be at least 1, got {self.piece}")
        names = [own.name for own in self.measurements]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"EvaluationConfig.measurements: expected names of their own, got {', '.join(names)}")
        if sum(isinstance(own, Greedy) for own in self.measurements) > 1:
            raise ValueError("EvaluationConfig.measurements: expected one Greedy, all are equal")
        for place, own in enumerate(self.measurements):
            if isinstance(own, EqualTokens) and not {own.search, own.samples} <= set(names[:place]):
                raise ValueError(
                    f"EvaluationConfig.measurements: {own.name} compares {own.search} and {own.samples}, "
                    f"expected both before it"
                )

    @property
    def of_every_round(self) -> list[Measurement]:
        """What a run measures after each round, on all held-out problems."""
        return [own for own in self.measurements if isinstance(own, Greedy)]

    @property
    def of_the_last_round(self) -> list[Measurement]:
        """What a run measures after the last round alone, on the headline's problems."""
        return [own for own in self.measurements if not isinstance(own, Greedy)]

    @property
    def search(self) -> Search:
        """The first search of the measurements. Raises ValueError if there is none."""
        for own in self.measurements:
            if isinstance(own, Search):
                return own
        raise ValueError("EvaluationConfig.measurements: expected a Search among them")

    def possible(self, has_ppm: bool) -> list[Measurement]:
        """What can be measured with or without a PPM."""
        found: list[Measurement] = []
        for own in self.measurements:
            names = {other.name for other in found}
            if (has_ppm or not own.needs_ppm) and (not isinstance(own, EqualTokens) or own.search in names):
                found.append(own)
        return found


def minuends(measurements: Sequence[Measurement]) -> list[str]:
    """The measurements whose gain over the others is asked for: the searches; without one, all that are not greedy."""
    searches = [own.name for own in measurements if isinstance(own, Search)]
    return searches or [own.name for own in measurements if not isinstance(own, Greedy)]
