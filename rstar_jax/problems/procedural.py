"""Procedural problems at several levels, and the worked examples of the bootstrap.

Writing worked examples is what the 236B model does in round 1 of the paper (section 3.3); here the families' own
programs do it.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping

from rstar_jax.problems.families import FAMILIES
from rstar_jax.problems.problem import Problem
from rstar_jax.trajectory import markers, steps

_DRAWS = 3000  # for each question, until one is admissible and new, on average, at the most


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProceduralProblems:
    """A set of procedural problems, a source of problems as `sources` has them.

    counts: {name in FAMILIES: how many problems of its levels 1, 2, ...}. split: stands before ids, and keys what is
    drawn. worked: whether each has its worked example as its solution. avoid: a set none of whose questions is asked
    again, nor any of those that it avoids itself.
    """

    counts: Mapping[str, tuple[int, ...]]
    split: str
    seed: int = 0
    worked: bool = False
    avoid: "ProceduralProblems | None" = None

    def __post_init__(self):
        for family, levels in self.counts.items():
            if family not in FAMILIES:
                raise ValueError(f"ProceduralProblems: {family!r} is not one of {', '.join(FAMILIES)}")
            there = len(FAMILIES[family].levels)
            if len(levels) != there:
                raise ValueError(f"ProceduralProblems: {family!r}: expected {there} counts, one a level, got {levels}")

    def read(self, *, blind: bool = False) -> list[Problem]:
        """As `sources.Source.read`; by id."""
        problems, _ = _drawn(self._key())
        if self.worked and not blind:
            return [dataclasses.replace(problem, solution=worked_example(problem)) for problem in problems]
        return [problem.blind() for problem in problems] if blind else list(problems)

    def _key(self) -> tuple:
        counts = tuple((family, tuple(levels)) for family, levels in self.counts.items())
        return (counts, self.split, self.seed, self.avoid and self.avoid._key())


@functools.cache  # a set is avoided by several others
def _drawn(key: tuple) -> tuple[tuple[Problem, ...], frozenset[str]]:
    """The problems of a set, by id, and the questions that a set which avoids it avoids."""
    counts, split, seed, avoid = key
    seen = set(_drawn(avoid)[1]) if avoid else set()
    problems = [
        problem
        for family, levels in counts
        for level, count in enumerate(levels, start=1)
        for problem in generate(family, level, count, split=split, seed=seed, avoid=seen)
    ]
    return tuple(sorted(problems, key=lambda problem: problem.id)), frozenset(seen)


def generate(
    family: str, level: int, count: int, *, split: str, seed: int, avoid: set[str] | None = None
) -> Iterator[Problem]:
    """`count` distinct problems of one family and level, none of them in `avoid`, which grows by their questions.

    The generator's seed is hashed from all arguments: neighbouring seeds of reasoning-gym give overlapping problems.
    """
    kind = FAMILIES[family]
    key = hashlib.sha256(f"{split}/{family}/{level}/{seed}".encode()).digest()
    source = kind.items(int.from_bytes(key[:4]) >> 1, _DRAWS * (count + 1), **kind.levels[level - 1])
    seen = set() if avoid is None else avoid
    found = 0
    for question, answer in source:
        if found == count:
            return
        if question in seen or not kind.admissible(question, answer, level):
            continue
        yield Problem(
            id=f"{split}/{family}/{level}/{found:05d}",
            question=question,
            answers=(answer,),
            source=family,
            level=str(level),
        )
        seen.add(question)
        found += 1
    if found < count:
        raise ValueError(f"{family}, level {level}: only {found} distinct problems, {count} were asked for")


def worked_program(problem: Problem) -> list[str]:
    """The lines of a right program: one operation a line, the last one prints the answer."""
    return FAMILIES[problem.source].program(problem.question)


def worked_example(problem: Problem) -> str:
    """A whole trajectory, from `<code>` to `<end_of_answer>`, as the bootstrap learns it."""
    *lines, last = worked_program(problem)
    code = "".join(f"{line}{markers.END_OF_STEP}" for line in lines)
    text = f"{markers.CODE}{code}{last}{markers.END_OF_CODE}"
    (answer,) = problem.answers
    return steps.with_output(text, f"{answer} 0") + steps.boxed(answer)
