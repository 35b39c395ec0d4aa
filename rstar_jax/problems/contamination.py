"""Which questions are asked twice, and which training problems are those of a benchmark.

Two readings of a question, both in lower case and of Unicode's compatible form (NFKC):
- its words, runs of letters or digits: "\\frac{1}{2} of $x$?" is frac 1 2 of x. A training problem that shares 13 words
  in a row with a question of a benchmark is left out (the count of Brown et al. 2020, arXiv 2005.14165, appendix C).
- its signs: words, numbers and operators. Where all of them are equal, however they are spaced and punctuated, it is
  one question. So short questions are found, and "x + 1" is not "x - 1".
"""

import dataclasses
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from rstar_jax.problems.problem import Problem

NGRAM = 13
_WORD = re.compile(r"[^\W_]+")
_SIGN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[-+*/^=<>()|\[\]%]|\\[{}]|(?<=[\d)])!|(?<=\b[^\W\d_])!")
_LOOSE = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|\\(?=[dt]frac)[dt](?=frac)")
_UNKNOWN = -1
_BATCH = 4096  # problems whose words are compared at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A training problem and a benchmark's, and the `words` that they share: 13 in a row, or the whole question."""

    id: str
    benchmark: str
    benchmark_id: str
    words: str


def question_key(question: str) -> str:
    """Equal for questions that differ in case, white space and punctuation alone."""
    return " ".join(_SIGN.findall(_LOOSE.sub(" ", _folded(question))))


def deduplicate(problems: Sequence[Problem]) -> list[Problem]:
    """The problems whose question no earlier one asks."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(question_key(problem.question), problem)
    return list(first.values())


def decontaminate(
    problems: Sequence[Problem], benchmarks: Sequence[Problem], ngram: int = NGRAM
) -> tuple[list[Problem], list[Pair]]:
    """The problems that are none of the benchmarks', and for each other the first benchmark problem of each source."""
    index = _Index(benchmarks, ngram)
    kept: list[Problem] = []
    pairs: list[Pair] = []
    for start in range(0, len(problems), _BATCH):
        batch = problems[start : start + _BATCH]
        for problem, found in zip(batch, index.find(batch), strict=True):
            if not found:
                kept.append(problem)
            for benchmark, words in found:
                source, name = benchmark.source or "", benchmark.id
                pairs.append(Pair(id=problem.id, benchmark=source, benchmark_id=name, words=words))
    return kept, pairs


class _Index:
    """The questions of benchmarks: by their signs, and by each run of `ngram` words, as numbers of a vocabulary."""

    def __init__(self, benchmarks: Sequence[Problem], ngram: int):
        self.benchmarks, self.ngram = benchmarks, ngram
        self.whole: dict[str, dict[str | None, int]] = {}
        self.vocabulary: dict[str, int] = {}
        numbers: list[int] = []
        owners: list[int] = []
        for owner, problem in enumerate(benchmarks):
            self.whole.setdefault(question_key(problem.question), {}).setdefault(problem.source, owner)
            words = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in _words(problem.question)]
            numbers += [*words, _UNKNOWN]  # no run goes on from one question into the next
            owners += [owner] * (len(words) + 1)
        self.numbers, owner_of = np.array(numbers, np.int64), np.array(owners, np.int64)
        hashes, places = _runs(self.numbers, ngram)
        order = np.argsort(hashes, kind="stable")  # of equal runs, the first of the benchmarks
        self.hashes, self.places = hashes[order], places[order]
        self.owners = owner_of[self.places]

    def find(self, problems: Sequence[Problem]) -> list[list[tuple[Problem, str]]]:
        """For each problem, the first benchmark problem of each source that is the same, and the words they share."""
        found: list[dict[str | None, tuple[int, str]]] = []
        numbers: list[int] = []
        starts = []
        for problem in problems:
            same = self.whole.get(question_key(problem.question), {})
            found.append({source: (owner, problem.question) for source, owner in same.items()})
            starts.append(len(numbers))
            numbers += [self.vocabulary.get(word, _UNKNOWN) for word in _words(problem.question)]
            numbers.append(_UNKNOWN)
        own = np.array(numbers, np.int64)
        hashes, places = _runs(own, self.ngram)
        left, right = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        hits = np.flatnonzero(left < right)
        holders = np.searchsorted(starts, places[hits], "right") - 1
        for hit, holder in zip(hits.tolist(), holders.tolist(), strict=True):
            run = own[places[hit] : places[hit] + self.ngram]
            for entry in range(left[hit], right[hit]):
                owner, place = int(self.owners[entry]), self.places[entry]
                source = self.benchmarks[owner].source
                if source not in found[holder] and np.array_equal(self.numbers[place : place + self.ngram], run):
                    words = _words(problems[holder].question)
                    begin = places[hit] - starts[holder]
                    found[holder][source] = owner, " ".join(words[begin : begin + self.ngram])
        return [[(self.benchmarks[owner], words) for owner, words in own.values()] for own in found]


def _runs(numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each run of `length` numbers without an unknown one, and where it begins: uint64 and int64 [R]."""
    count = max(len(numbers) - length + 1, 0)
    hashes = np.zeros(count, np.uint64)
    unknown = np.concatenate([[0], np.cumsum(numbers == _UNKNOWN)])
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    for offset in range(length):
        hashes = hashes * np.uint64(0xBF58476D1CE4E5B9) + mixed[offset : offset + count]
    places = np.flatnonzero(unknown[length : length + count] == unknown[:count])
    return hashes[places], places


def _words(question: str) -> list[str]:
    return _WORD.findall(_folded(question))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
