"""Rows of measurements, their summaries with standard errors, and that who was killed goes on to the same rows."""

import dataclasses
import itertools
import json
import statistics

import pytest

from rstar_jax import evaluation
from rstar_jax.decoding import GREEDY
from rstar_jax.evaluation import Bench, EqualTokens, EvaluationConfig, Greedy, Samples, Search, measure, measurements
from rstar_jax.search import SchedulerConfig, read_trees
from tests.search import scripted

SEARCH = Search(config=dataclasses.replace(scripted.CONFIG, value_mode="test", rollouts=4), trees=2)
ALL = (Greedy(), Samples(n=6), SEARCH, EqualTokens())


class Sampler(scripted.Sampler):
    def begin(self):
        pass


class Oracle(scripted.Scorer):
    """Knows which of the sampled solutions is right; of a search, no more than its parent."""

    def score(self, prefixes, candidates):
        rows = []
        for prefix, row in zip(prefixes, candidates, strict=True):
            first = int(scripted.path_question(prefix.text)[2])
            rows.append([1.0 if f"boxed{{{2 * first + 1}}}" in scripted.decode(own) else -1.0 for own in row])
        return rows


class Engine(Sampler, Oracle):
    pass


def bench(grader=None, **changes):
    made = []

    def make_engine(sampling, with_ppm):
        made.append((sampling, with_ppm))
        return Engine()

    options = dict(
        make_engine=make_engine,
        has_ppm=True,
        verifier=scripted.Verifier(),
        grader=grader or scripted.Grader(),
        max_prefix_tokens=2000,
        scheduling=SchedulerConfig(in_flight=7),
        seed=2,
    )
    own = Bench(**options | changes)
    own.made = made
    return own


def row(key, level, value, **more):
    return {"id": key, "level": level, "values": {"greedy_accuracy": value}, **more}


def test_the_time_limit_is_that_of_a_measurement_and_not_of_each_piece(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(measurements.time, "monotonic", lambda: now[0])
    own = bench(scheduling=SchedulerConfig(seconds=60.0))
    left = []
    for passed in (0.0, 25.0, 50.0):
        now[0] += passed
        left.append(own.scheduling_of("search").seconds)
    assert left == [60.0, 35.0, 0.0]
    assert own.scheduling_of("beam").seconds == 60.0
    assert bench().scheduling_of("search").seconds is None


def test_the_standard_error_is_that_of_the_bootstrap():
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    means = [sum(own) / 5 for own in itertools.product(values, repeat=5)]  # every draw there is
    mean, error = evaluation.mean_and_error(values)
    assert mean == 0.6 and error == pytest.approx(statistics.pstdev(means))
    assert evaluation.mean_and_error([1.0]) == (1.0, 0.0)


def test_the_error_of_a_difference_is_paired():
    greedy, search = [1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0, 1.0]
    measured = {
        "greedy": [row(str(i), None, value) for i, value in enumerate(greedy)],
        "search": [
            {"id": str(i), "level": None, "values": {"search_accuracy": value, "pass_at_2": 1.0}}
            for i, value in reversed(list(enumerate(search)))  # paired by id, not by place
        ],
    }
    (gain,) = evaluation.differences(measured, ["search"])
    draws = itertools.product(range(5), repeat=5)
    means = [sum(search[i] - greedy[i] for i in own) / 5 for own in draws]
    assert (gain["name"], gain["n"]) == ("search - greedy", 5)
    assert gain["value"] == pytest.approx(0.4) and gain["error"] == pytest.approx(statistics.pstdev(means))


def test_all_is_the_mean_over_all_problems():
    # MATH-500 has 43, 90, 105, 128 and 134 problems of levels 1 to 5.
    counts = {"1": (43, 20), "2": (90, 30), "3": (105, 35), "4": (128, 28), "5": (134, 20)}
    rows = [
        row(f"{level}/{i}", level, float(i < right)) for level, (count, right) in counts.items() for i in range(count)
    ]
    everything, leading, *levels = evaluation.summarise(rows, ("2", "3"))
    assert round(everything["value"], 3) == 0.266 and everything["n"] == 500 and "levels" not in everything
    assert leading["levels"] == "2, 3" and leading["n"] == 195 and leading["value"] == pytest.approx(65 / 195)
    assert [own["level"] for own in levels] == list(counts)
    assert "levels" not in evaluation.summarise(rows)[0]
    only = evaluation.summarise([own for own in rows if own["level"] in "23"], ("2", "3"))
    assert ["levels" in own for own in only] == [True, False, False], "the headline is all there is"
    assert evaluation.summarise([]) == []


def test_every_measurement_has_its_rows():
    problems, own = scripted.problems(8), bench()
    measured = measure(problems, ALL, own)
    assert list(measured) == ["greedy", "samples", "search", "equal_tokens"]
    assert own.made == [(GREEDY, False), (Samples().sampling, True), (EqualTokens().sampling, False)]
    for name, rows in measured.items():
        assert [one["id"] for one in rows] == [problem.id for problem in problems]
        for one, problem in zip(rows, problems, strict=True):
            assert one["measurement"] == name and one["tokens"] > 0 and one["programs"] > 0
            assert one["right"] == [answer in problem.answers for answer in one["answers"]]
            for number, chosen in one["chosen"].items():
                assert one["values"][number] == float(chosen["right"]) == float(chosen["answer"] in problem.answers)
                assert chosen["answer"] is None or f"boxed{{{chosen['answer']}}}" in chosen["text"]
    equal = EqualTokens().n(measured)
    assert all(len(one["answers"]) == equal for one in measured["equal_tokens"]) and equal > 1
    for one in measured["samples"]:
        assert one["values"]["best_of_n_accuracy"] == one["values"]["pass_at_6"] == float(True in one["right"])
    numbers = {one["name"]: one for one in evaluation.summarise(measured["search"]) if "trajectories" not in one}
    curve = [one for one in evaluation.summarise(measured["search"]) if one.get("trajectories") == 2]
    assert numbers["search_accuracy"]["value"] in [one["value"] for one in curve]
    assert numbers["search_accuracy"]["tokens"] == sum(one["tokens"] for one in measured["search"]) / 8


def test_without_a_ppm_there_is_no_search():
    config = EvaluationConfig(measurements=ALL)
    assert [own.name for own in config.possible(True)] == ["greedy", "samples", "search", "equal_tokens"]
    assert [own.name for own in config.possible(False)] == ["greedy", "samples"]
    (one,) = measure(scripted.problems(1), config.possible(False)[1:], bench(has_ppm=False))["samples"]
    assert list(one["values"]) == ["majority_accuracy", "pass_at_6"]
    with pytest.raises(ValueError, match="equal_tokens compares search and samples, expected both before it"):
        EvaluationConfig(measurements=(EqualTokens(), Samples(), SEARCH))
    with pytest.raises(ValueError, match="expected names of their own"):
        EvaluationConfig(measurements=(Samples(), Samples(n=4)))
    with pytest.raises(ValueError, match="expected a Search"):
        _ = EvaluationConfig().search


def test_undecided_answers_are_counted_and_not_called_wrong():
    class Unsure(scripted.Grader):
        def grade(self, pairs):
            return [
                None if pair[1] == "1" else decided for pair, decided in zip(pairs, super().grade(pairs), strict=True)
            ]

    problems = scripted.problems(3)  # the right answer of the first is 1
    measured = measure(problems, (Samples(n=8),), bench(grader=Unsure()))["samples"]
    assert None in measured[0]["right"] and True not in measured[0]["right"]
    numbers = {one["name"]: one for one in evaluation.summarise(measured)}
    assert numbers["pass_at_8"]["undecided"] == 1


def test_killed_and_gone_on_the_rows_are_the_same(tmp_path):
    problems = scripted.problems(8)
    whole = measure(problems, ALL, bench(trees=tmp_path / "trees"), tmp_path / "whole", 3)
    assert len(list((tmp_path / "whole").iterdir())) == 4 * 3
    assert len(list(read_trees(tmp_path / "trees"))) == 8 * 2
    assert json.loads(json.dumps(whole)) == whole == measure(problems, ALL, None, tmp_path / "whole", 3)

    class Killed(Exception):
        pass

    class Dying(scripted.Verifier):
        left = 0

        def submit(self, request):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().submit(request)

    for left in (4, 11, 40, 90):
        dying = Dying()
        dying.left = left
        try:
            measure(problems, ALL, bench(verifier=dying), tmp_path / "killed", 3)
        except Killed:
            continue
    assert measure(problems, ALL, bench(), tmp_path / "killed", 3) == whole
    with pytest.raises(ValueError, match="greedy-00000-of-00003.jsonl: holds rows of other problems"):
        measure(problems[::-1], ALL, bench(), tmp_path / "killed", 3)
