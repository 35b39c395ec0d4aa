"""Procedural problems: worked examples are right, splits do not overlap, the data set keeps what it was given."""

import dataclasses
import re

import pytest

from rstar_jax.problems import procedural, sequences, shortcuts
from rstar_jax.problems.families import FAMILIES
from rstar_jax.problems.procedural import ProceduralProblems
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
    printed = [f"{problem.answers[0]} 0" for problem in problems]
    assert [outcome.output.strip() for outcome in outcomes] == printed
    for problem, output in zip(problems, printed, strict=True):
        assert f"\n{markers.OUTPUT}{output}{markers.END_OF_OUTPUT}" in procedural.worked_example(problem)
        assert steps.boxed_answer(procedural.worked_example(problem)) == problem.answers[0]
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


def test_a_set_asks_nothing_that_those_before_it_asked():
    both = ("chain_sum", "leg_counting")
    heldout = ProceduralProblems(split="heldout", counts={family: (6, 6, 6, 6) for family in both})
    worked = ProceduralProblems(
        split="bootstrap", counts={family: (30, 4, 2, 1) for family in both}, worked=True, avoid=heldout
    )
    first = ProceduralProblems(split="round_1", counts={family: (2, 5, 5, 5) for family in both}, avoid=worked)
    second = ProceduralProblems(split="round_2", counts={"leg_counting": (4, 10, 10, 10)}, avoid=first)
    sets = [own.read() for own in (heldout, worked, first, second)]
    assert [len(problems) for problems in sets] == [48, 74, 34, 34]
    questions = [problem.question for problems in sets for problem in problems]
    assert len(questions) == len(set(questions))
    assert all(
        bool(problem.solution) == (own is sets[1]) for own in sets for problem in own
    )  # answers alone are labels
    assert sets == [own.read() for own in (heldout, worked, first, second)]
    assert worked.read(blind=True) == [problem.blind() for problem in sets[1]]
    other = dataclasses.replace(heldout, seed=1).read()
    assert not {problem.question for problem in other} >= {problem.question for problem in sets[0]}


def test_unknown_families_and_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="'algebra' is not one of"):
        ProceduralProblems(split="a", counts={"algebra": (1, 1, 1, 1)})
    with pytest.raises(ValueError, match="expected 4 counts"):
        ProceduralProblems(split="a", counts={"chain_sum": (1, 1)})


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
        assert passed == ["0"] and result != problem.answers[0]


def _ways(line):
    """Of a line of a program of shortcuts: its kind, every way of it as a line, and which one was taken."""
    number, way, check = line.split("; ")
    for kind in (*shortcuts._KINDS, shortcuts._ADD, shortcuts._TABLES):
        if way in kind.ways:
            return kind, [f"{number}; {other}; {check}" for other in kind.ways], kind.ways.index(way)
    raise AssertionError(line)


def _state_after(*lines):
    state = {}
    exec("\n".join(lines), state)  # noqa: S102
    return state


@pytest.mark.parametrize("level", range(1, len(FAMILIES["shortcuts"].levels) + 1))
def test_shortcuts_fail_where_a_level_says_so_and_nowhere_else(level):
    arguments = FAMILIES["shortcuts"].levels[level - 1]
    taken, tried, additions, problems = [0, 0, 0], [0, 0, 0], 0, 120
    for problem in procedural.generate("shortcuts", level, problems, split="test", seed=3):
        first, *lines, last = procedural.worked_program(problem)
        failed, tables = [], 0
        for place, line in enumerate(lines):
            kind, ways, way = _ways(line)
            before = [first, *lines[:place]]
            results = [(state["t"], state["r"]) for state in (_state_after(*before, other) for other in ways)]
            if kind is shortcuts._TABLES:
                assert [rest == 0 for _, rest in results].count(True) == 1 and results[way][1] == 0
                tables += 1
                tried[way] += 1
            elif len(set(results)) > 1:
                assert way == len(ways) - 1 and results[way] not in results[:way]
                failed.append(kind)
            elif len(ways) > 1:
                assert not arguments["failing"]
                taken[way] += 1
            additions += len(ways) == 1
        assert sorted(map(id, failed)) == sorted(map(id, shortcuts._KINDS[: arguments["failing"]]))
        assert tables <= 1 and (tables == 0 or arguments["tables"])
        assert last == "print(s, r)" and str(_state_after(first, *lines)["s"]) == problem.answers[0]
        assert len(set(re.findall(r"(\d): ", problem.question))) == len(lines) == 5
    if arguments["tables"]:
        assert 0.45 < sum(tried) / problems < 0.75 and min(tried) > 0.1 * sum(tried)
    if not arguments["failing"]:
        assert 0.1 < taken[-1] / sum(taken) < 0.35 and min(taken) == taken[-1]
        assert 0.2 < additions / (5 * problems) < 0.6  # they do not tell an easy problem from a hard one


def test_one_wrong_way_and_the_answer_is_wrong():
    unnoticed = noticed = 0
    for problem in procedural.generate("shortcuts", 6, 100, split="test", seed=4):
        first, *lines, _ = procedural.worked_program(problem)
        for place, line in enumerate(lines):
            _, ways, taken = _ways(line)
            for way in set(ways) - {ways[taken]}:
                answer = str(_state_after(first, *lines[:place], way, *lines[place + 1 :])["s"])
                unnoticed += answer == problem.answers[0]
                noticed += answer != problem.answers[0]
    assert noticed > 800 and unnoticed < 0.01 * noticed  # mistakes of different steps may cancel
