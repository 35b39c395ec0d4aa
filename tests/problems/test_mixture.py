"""Mixtures: shares, draws that depend on a seed and on nothing else, each question once, none of a benchmark's."""

import collections
import dataclasses
import json
import random

import pytest

from rstar_jax.problems import commands, contamination
from rstar_jax.problems.contamination import Pair, decontaminate, deduplicate, question_key
from rstar_jax.problems.mixture import Mixture
from rstar_jax.problems.problem import Problem

WORDS = [first + last for first in "bcdfghklmnprstvw" for last in ("a", "ell", "ing", "ox", "um", "ere", "all", "it")]


@dataclasses.dataclass(frozen=True)
class Listed:
    """Problems at hand."""

    problems: tuple

    def read(self, *, blind=False):
        return [own.blind() if blind else own for own in self.problems]


def asked(draw, length):
    return " ".join(draw.choices(WORDS, k=length)).capitalize() + "?"


def made(name, count, seed, length=(20, 60)):
    draw = random.Random(f"{name}/{seed}")
    return tuple(
        Problem(id=f"{name}/{n}", question=asked(draw, draw.randint(*length)), answers=(str(n),), source=name)
        for n in range(count)
    )


@pytest.mark.parametrize("seed", range(4))
def test_shares_and_order_depend_on_the_seed_alone(seed):
    draw = random.Random(seed)
    counts = [draw.randint(200, 400) for _ in range(3)]
    weights = tuple(draw.uniform(0.5, 2) for _ in range(3))
    parts = [made(f"part{n}", count, seed) for n, count in enumerate(counts)]
    size = draw.randint(50, 150)
    mixture = Mixture(parts=tuple(map(Listed, parts)), weights=weights, size=size, seed=seed)
    problems = mixture.read()
    assert len(problems) == len({own.id for own in problems}) == size
    by_source = collections.Counter(own.source for own in problems)
    for n, weight in enumerate(weights):
        assert abs(by_source[f"part{n}"] - size * weight / sum(weights)) < 1
    shuffled = tuple(Listed(tuple(draw.sample(part, len(part)))) for part in parts)
    assert dataclasses.replace(mixture, parts=shuffled).read() == problems
    other = dataclasses.replace(mixture, seed=seed + 1).read()
    assert {own.id for own in other} != {own.id for own in problems}
    assert mixture.read(blind=True) == [own.blind() for own in problems]
    places = [place for place, own in enumerate(problems) if own.source == "part0"]
    assert 0.2 < sum(places) / len(places) / size < 0.8, "the parts are mixed"


def test_as_many_as_can_be_had():
    parts = (Listed(made("a", 100, 0)), Listed(made("b", 30, 0)))
    assert len(Mixture(parts=parts).read()) == 130
    drawn = collections.Counter(own.source for own in Mixture(parts=parts, weights=(2, 1)).read())
    assert drawn == {"a": 60, "b": 30}
    with pytest.raises(ValueError, match="part 1 has 30 problems, 50 of 100 are asked for"):
        Mixture(parts=parts, weights=(1, 1), size=100).read()
    with pytest.raises(ValueError, match="expected 2 numbers above 0"):
        Mixture(parts=parts, weights=(1, 0))
    with pytest.raises(ValueError, match="id 'a/0' occurs twice"):
        Mixture(parts=(parts[0], Listed(parts[0].problems[:1]))).read()


def respelled(draw, text):
    """The same question in another case, with other spaces and punctuation."""
    words = [draw.choice((str.upper, str.title, str.lower))(word) for word in text.strip("?").split()]
    return "".join(word + draw.choice((" ", "  ", "\n", ", ", "; ", "! ", ". ")) for word in words)


@pytest.mark.parametrize("seed", range(4))
def test_planted_copies_are_found_and_nothing_else_is(seed):
    draw = random.Random(seed)
    benchmarks = [*made("long", 50, seed), *made("short", 50, seed, length=(3, 12))]
    training = list(made("training", 500, seed))
    planted = {}
    for place in draw.sample(range(len(training)), 60):
        source = draw.choice(benchmarks)
        words = source.question.strip("?").split()
        if len(words) > contamination.NGRAM and draw.random() < 0.5:  # a part of it, among other words
            begin = draw.randrange(len(words) - contamination.NGRAM)
            part = words[begin : begin + contamination.NGRAM]
            question = f"{asked(draw, 5)} {respelled(draw, ' '.join(part))} {asked(draw, 5)}"
        else:
            question = respelled(draw, source.question)
        training[place] = dataclasses.replace(training[place], question=question)
        planted[training[place].id] = source.id
    kept, pairs = decontaminate(training, benchmarks)
    assert {pair.id: pair.benchmark_id for pair in pairs} == planted
    assert [own.id for own in kept] == [own.id for own in training if own.id not in planted]


def test_less_than_thirteen_words_are_no_copy():
    words = [f"w{n}" for n in range(12)]
    benchmark = [Problem(id="b", question=" ".join(["x", *words, "y", "z"]), answers=(), source="b")]
    training = [Problem(id="t", question=" ".join(["p", *words, "q", "r"]), answers=("1",))]
    assert decontaminate(training, benchmark) == (training, [])
    pair = Pair(id="t", benchmark="b", benchmark_id="b", words=" ".join(words))
    assert decontaminate(training, benchmark, 12) == ([], [pair])


def test_equal_is_what_differs_in_spelling_alone():
    same = [
        "Find $x+1$.",
        "find  x + 1",
        "FIND $x\\,+1$!?".replace("!", ""),
        "Find ｘ＋１:",
        "find $\\left.x+1\\right.$",
    ]
    assert len(set(map(question_key, same))) == 1
    assert question_key("$\\dfrac{1}{2}$") == question_key("\\frac{1}{2}")
    different = [
        "Find $x-1$.",
        "Find $x+1=0$.",
        "Find $x+11$.",
        "Find $(x+1)$.",
        "Find $x+1.5$",
        "Find $y+1$",
        "Find 5!",
        "Find 5",
    ]
    assert len(set(map(question_key, [same[0], *different]))) == 1 + len(different)


def test_each_question_once_and_the_first_part_has_it():
    first, second = made("first", 20, 1), made("second", 20, 1)
    copied = tuple(dataclasses.replace(own, question=first[n].question.upper()) for n, own in enumerate(second[:8]))
    again = tuple(dataclasses.replace(own, id=f"{own.id}b") for own in first[:5])
    unknown = tuple(dataclasses.replace(own, answers=()) for own in made("first", 23, 1)[20:])
    parts = (Listed((*first, *again, *unknown)), Listed((*copied, *second[8:])))
    benchmark = dataclasses.replace(second[10], id="benchmark/1", source="benchmark")
    drawn = Mixture(parts=parts, avoid=(Listed((benchmark,)),), seed=3).draw()
    assert drawn.counts == {
        "first": {"read": 28, "unanswered": 3, "repeated": 5, "contaminated": 0, "drawn": 20},
        "second": {"read": 20, "unanswered": 0, "repeated": 8, "contaminated": 1, "drawn": 11},
    }
    (pair,) = drawn.pairs
    assert (pair.id, pair.benchmark, pair.benchmark_id) == (second[10].id, "benchmark", "benchmark/1")
    assert drawn.rows()[-1]["id"] == second[10].id and json.dumps(drawn.rows())
    assert len(deduplicate(drawn.problems)) == len(drawn.problems) == 31


def test_the_report_is_written_beside_the_problems(tmp_path, monkeypatch):
    source = Mixture(parts=(Listed(made("a", 9, 0)),), avoid=(Listed(made("a", 2, 0)),))
    monkeypatch.setattr(commands.named, "find", lambda name: source)
    commands.write(problems="a", output=str(tmp_path / "a.jsonl"))
    counts, *pairs = map(json.loads, (tmp_path / "a.jsonl.report").read_text().splitlines())
    assert counts == {"source": "a", "read": 9, "unanswered": 0, "repeated": 0, "contaminated": 2, "drawn": 7}
    assert sorted(pair["benchmark_id"] for pair in pairs) == ["a/0", "a/1"]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 7
