"""Problems of several sources, each question once, without those of the benchmarks that a model is measured on."""

import collections
import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from rstar_jax.problems.contamination import NGRAM, Pair, decontaminate, deduplicate
from rstar_jax.problems.problem import Problem
from rstar_jax.problems.sources import Source

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a mixture drew, and why not the rest.

    counts: {source of the problems: {"read", "unanswered", "repeated", "contaminated", "drawn": how many}}.
    pairs: the problems left out as those of benchmarks, with what they share.
    """

    problems: list[Problem]
    counts: dict[str, dict[str, int]]
    pairs: list[Pair]

    def rows(self) -> list[dict[str, Any]]:
        """The report, as rows of JSON: the counts of each source, then the pairs."""
        counts = [{"source": source, **own} for source, own in self.counts.items()]
        return counts + [dataclasses.asdict(pair) for pair in self.pairs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Parts, and how much of each.

    parts: sources whose problems have ids of their own (`name`). Of problems that ask the same, that of the first part
        stays, and in a part the one that the seed draws first.
    weights: the shares of the parts; None takes all of each.
    size: problems in all; None with weights is as many as can be had without asking one twice.
    avoid: sources, mostly benchmarks, none of whose problems may be in it. ngram: see `contamination`.
    seed: which problems of a part, and in which order, by a hash of seed and id: the files' order has no say in it.
    """

    parts: tuple[Source, ...]
    weights: tuple[float, ...] | None = None
    size: int | None = None
    avoid: tuple[Source, ...] = ()
    ngram: int = NGRAM
    seed: int = 0

    def __post_init__(self):
        weights = self.weights
        if weights is not None and (len(weights) != len(self.parts) or min(weights, default=0) <= 0):
            raise ValueError(f"Mixture.weights: expected {len(self.parts)} numbers above 0, one a part, got {weights}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"Mixture.size: expected a count, got {self.size}")

    def read(self, *, blind: bool = False) -> list[Problem]:
        """As `Source.read`; says in the log what was left out."""
        drawn = self.draw()
        for source, own in drawn.counts.items():
            _log.info("%s: %s", source, ", ".join(f"{count} {name}" for name, count in own.items()))
        return [problem.blind() for problem in drawn.problems] if blind else drawn.problems

    def draw(self) -> Drawn:
        """The problems and the report. Raises as the parts do, or ValueError where a part has too few."""
        steps: dict[str, collections.Counter[str]] = {}

        def count(name: str, problems: Iterable[Problem]) -> None:
            for problem in problems:
                steps.setdefault(problem.source or "", collections.Counter())[name] += 1

        benchmarks = [problem for source in self.avoid for problem in source.read(blind=True)]
        parts: list[list[Problem]] = []
        for part in self.parts:
            read = part.read()
            count("read", read)
            parts.append(sorted((problem for problem in read if problem.answers), key=self._draw))
        owner = {problem.id: number for number, part in enumerate(parts) for problem in part}
        every = [problem for part in parts for problem in part]
        count("answered", every)
        if len(owner) < len(every):
            twice = collections.Counter(problem.id for problem in every).most_common(1)[0][0]
            raise ValueError(f"Mixture.parts: id {twice!r} occurs twice; a `name` of each part tells them apart")
        unique = deduplicate(every)
        count("unique", unique)
        clean, pairs = decontaminate(unique, benchmarks, self.ngram)
        count("clean", clean)
        left: list[list[Problem]] = [[] for _ in self.parts]
        for problem in clean:
            left[owner[problem.id]].append(problem)
        drawn = [own[:size] for own, size in zip(left, self._sizes([len(own) for own in left]), strict=True)]
        problems = sorted((problem for own in drawn for problem in own), key=self._draw)
        count("drawn", problems)
        counts = {
            source: {
                "read": own["read"],
                "unanswered": own["read"] - own["answered"],
                "repeated": own["answered"] - own["unique"],
                "contaminated": own["unique"] - own["clean"],
                "drawn": own["drawn"],
            }
            for source, own in steps.items()
        }
        return Drawn(problems=problems, counts=counts, pairs=pairs)

    def _draw(self, problem: Problem) -> bytes:
        return hashlib.sha256(f"{self.seed}/{problem.id}".encode(errors="surrogatepass")).digest()

    def _sizes(self, there: Sequence[int]) -> list[int]:
        """How many problems of each part are drawn, of as many as are there."""
        if self.weights is None and self.size is None:
            return list(there)
        weights = there if self.weights is None else self.weights
        shares = [weight / sum(weights) for weight in weights]
        size = self.size
        if size is None:
            size = int(min(count / share for count, share in zip(there, shares, strict=True)))
        sizes = [int(size * share) for share in shares]
        rest = sorted(range(len(sizes)), key=lambda part: (sizes[part] - size * shares[part], part))
        for part in rest[: size - sum(sizes)]:  # the largest remainders, so that the sum is right
            sizes[part] += 1
        for number, (asked, count) in enumerate(zip(sizes, there, strict=True)):
            if asked > count and self.size is not None:
                raise ValueError(f"Mixture: part {number} has {count} problems, {asked} of {size} are asked for")
        return [min(asked, count) for asked, count in zip(sizes, there, strict=True)]
