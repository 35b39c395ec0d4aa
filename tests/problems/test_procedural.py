"""Procedural problems: worked examples are right, splits do not overlap, the data set keeps what it was given."""

import re

import pytest

from rstar_jax.problems import datasets, procedural, sequences, shortcuts
from rstar_jax.problems.families import FAMILIES
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier import Request, Verifier


@pytest.mark.parametrize("family", FAMILIES)
def test_worked_examples_give_the_generators_answer(family):
    problems = [
        problem
        for level in range(1, 4)  # number sequences of four operations are rare, and found slowly
        for problem in procedural.generate(family, level, 15, split="test", seed=1)
    ]
    with Verifier(workers=1) as verifier:
        programs = tuple("\n".join(procedural.worked_program(problem)) for problem in problems)
        outcomes = verifier.run([Request(prefix="", candidates=programs)])[0]
    printed = [f"{problem.answer} {FAMILIES[family].passed}".strip() for problem in problems]
    assert [outcome.output.strip() for outcome in outcomes] == printed
    for problem, output in zip(problems, printed, strict=True):
        assert f"\n{markers.OUTPUT}{output}{markers.END_OF_OUTPUT}" in procedural.worked_example(problem)
        assert steps.boxed_answer(procedural.worked_example(problem)) == problem.answer
        if family not in ("number_sequence", "shortcuts"):
            assert not re.search(r"\b0\b", problem.question)  # a term that may be skipped and nobody sees it


@pytest.mark.parametrize("family", ["chain_sum", "basic_arithmetic"])
def test_levels_have_more_and_more_steps(family):
    means = []
    for level, _ in enumerate(FAMILIES[family].levels, start=1):
        programs = [procedural.worked_program(p) for p in procedural.generate(family, level, 20, split="test", seed=1)]
        means.append(sum(map(len, programs)) / len(programs))
    assert means == sorted(means) and means[3] > 2 * means[0]


def test_a_seed_and_a_split_give_their_own_problems():
    def questions(split, seed):
        return {p.question for p in procedural.generate("leg_counting", 2, 40, split=split, seed=seed)}

    assert questions("a", 0) == questions("a", 0)
    assert not questions("a", 0) & questions("a", 1)
    assert not questions("a", 0) & questions("b", 0)


def test_what_is_to_be_avoided_is_avoided():
    first = list(procedural.generate("chain_sum", 1, 30, split="a", seed=0))
    avoid = {problem.question for problem in first}
    second = list(procedural.generate("chain_sum", 1, 30, split="a", seed=0, avoid=avoid))
    assert not {p.question for p in first} & {p.question for p in second}


def test_splits_of_the_data_set_share_no_question(tmp_path):
    wanted = procedural.ProceduralProblems(
        bootstrap={family: (30, 4, 2, 1) for family in ("chain_sum", "leg_counting")},
        rounds=({"chain_sum": (2, 5, 5, 5), "leg_counting": (2, 5, 5, 5)}, {"leg_counting": (4, 10, 10, 10)}),
        heldout={family: (6, 6, 6, 6) for family in ("chain_sum", "leg_counting")},
    )
    datasets.prepare_procedural(tmp_path, wanted, 0)
    splits = {name: datasets.read_problems(tmp_path, name) for name in ("bootstrap", "round_1", "round_2", "heldout")}
    assert [len(problems) for problems in splits.values()] == [74, 34, 34, 48]
    questions = [problem.question for problems in splits.values() for problem in problems]
    assert len(questions) == len(set(questions))
    worked = {row["worked_example"] == "" for row in datasets.read(tmp_path, "round_1")}
    assert worked == {True}  # final answers are the only labels
    assert all(row["worked_example"] for row in datasets.read(tmp_path, "bootstrap"))
    with pytest.raises(ValueError, match="has no split 'test'"):
        datasets.read(tmp_path, "test")


def test_unknown_families_and_wrong_counts_are_refused():
    counts = {"chain_sum": (1, 1, 1, 1)}
    with pytest.raises(ValueError, match="'algebra' is not one of"):
        procedural.ProceduralProblems(bootstrap={"algebra": (1, 1, 1, 1)}, rounds=(), heldout=counts)
    with pytest.raises(ValueError, match="expected 4 counts"):
        procedural.ProceduralProblems(bootstrap=counts, rounds=({"chain_sum": (1, 1)},), heldout=counts)


@pytest.mark.parametrize(
    "terms, rule",
    [
        ([2, 5, 8, 11, 14, 17], ("shift",)),
        ([3, 6, 12, 24, 48, 96], ("* 2",)),
        ([1, 3, 7, 15, 31, 63], ("* 2", "shift")),
        ([2, 2, 4, 6, 10, 16], ("previous",)),
        ([40, 25, 17, 13, 11, 10], ("// 2", "shift")),
        ([1, 4, 9, 16, 25, 36], None),
    ],
)
def test_the_shortest_rule_of_a_sequence(terms, rule):
    assert sequences.rule(terms, 2) == rule


@pytest.mark.parametrize("family", FAMILIES)
def test_right_programs_stay_right_on_fresh_numbers(family):
    problems = list(procedural.generate(family, 2, 10, split="test", seed=1))
    programs = ["\n".join(procedural.worked_program(problem)) for problem in problems]
    fresh = [FAMILIES[family].fresh(code, p.question, 0) for code, p in zip(programs, problems, strict=True)]
    with Verifier(workers=1) as verifier:
        outcomes = verifier.run([Request(prefix="", candidates=tuple(fresh))])[0]
    for problem, outcome in zip(problems, outcomes, strict=True):
        result, *passed = outcome.output.split()
        assert passed == FAMILIES[family].passed.split() and result != problem.answer


def _ways(line):
    """Of a line of a program of shortcuts: its kind, every way of it, and whether the careful one was taken."""
    body = line.removeprefix("t = ").split(";")[0]
    n = next(n for n in re.findall(r"\d+", body) if n not in "01")
    for kind in (*shortcuts._KINDS, shortcuts._ADD):
        ways = [way.format(n=n) for way in kind.ways]
        if body in ways:
            return kind, ways, body == ways[-1]
    raise AssertionError(line)


@pytest.mark.parametrize("level", range(1, len(FAMILIES["shortcuts"].levels) + 1))
def test_shortcuts_fail_where_a_level_says_so_and_nowhere_else(level):
    failing = FAMILIES["shortcuts"].levels[level - 1]["failing"]
    taken = [0, 0]
    for problem in procedural.generate("shortcuts", level, 40, split="test", seed=3):
        first, *lines, last = procedural.worked_program(problem)
        state = {}
        exec(first, state)  # noqa: S102
        failed = []
        for line in lines:
            kind, ways, careful = _ways(line)
            values = [eval(way, dict(state)) for way in ways]  # noqa: S307
            assert len(set(values)) == 1 or values[-1] not in values[:-1]
            if len(set(values)) > 1:
                assert careful
                failed.append(kind)
            elif len(ways) > 1:
                assert not failing
                taken[careful] += 1
            exec(line, state)  # noqa: S102
        assert [failed.count(kind) for kind in shortcuts._KINDS[: len(failing)]] == list(failing)
        assert len(failed) == sum(failing)
        assert last == "print(s)" and str(state["s"]) == problem.answer
    if not failing:
        assert 0.05 < taken[1] / sum(taken) < 0.4


def test_one_shortcut_too_many_and_the_answer_is_wrong():
    for problem in procedural.generate("shortcuts", 6, 40, split="test", seed=4):
        first, *lines, last = procedural.worked_program(problem)
        for place, line in enumerate(lines):
            _, ways, _ = _ways(line)
            if len(ways) == 1:
                continue
            state = {}
            shortcut = f"t = {ways[0]}; s = s * k % m + t"
            exec("\n".join([first, *lines[:place], shortcut, *lines[place + 1 :]]), state)  # noqa: S102
            assert str(state["s"]) != problem.answer
