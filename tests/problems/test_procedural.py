"""Procedural problems: worked examples are right, splits do not overlap, the data set keeps what it was given."""

import re

import pytest

from rstar_jax.problems import datasets, procedural, sequences, stages
from rstar_jax.problems.families import FAMILIES
from rstar_jax.trajectory import steps
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
    assert [outcome.output.strip() for outcome in outcomes] == [f"{problem.answer} 0" for problem in problems]
    for problem in problems:
        assert steps.boxed_answer(procedural.worked_example(problem)) == problem.answer
        if family != "number_sequence":
            assert not re.search(r"\b0\b", problem.question)  # a term that may be skipped and nobody sees it


@pytest.mark.parametrize("family", ["chain_sum", "stages"])
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
        result, error = outcome.output.split()
        assert error == "0" and result != problem.answer


@pytest.mark.parametrize("level", range(1, len(FAMILIES["stages"].levels) + 1))
def test_each_stage_leads_to_another_letter_and_the_answer_follows(level):
    arguments = FAMILIES["stages"].levels[level - 1]
    for question, answer in stages.items(level, 50, **arguments):
        value, *shown = re.findall(r"\b[A-Z]\b|\d+", question)
        assert arguments["least"] <= len(shown) - 1 <= arguments["most"] and len(set(shown)) == len(shown)
        terms = [ord(after) - ord(before) for before, after in zip(shown[:-1], shown[1:], strict=True)]
        assert all(0 < abs(term) <= arguments["largest_term"] for term in terms)
        check = int(value)
        for term in terms:
            check = 7 * check % 997 + abs(term)
        assert answer == str(check)


def test_a_program_of_stages_counts_the_rules_that_do_not_fit():
    names, *right = stages.program("Begin with 7. What is the check number of the walk D > H > E?")
    assert names.endswith("Z = range(1, 27)\nm, t, e = 997, 7, 0")
    assert right == [
        "e += D != H - 4; t = t * 7 % m + 4",
        "e += H != E + 3; t = t * 7 % m + 3",
        "print(t, e)",
    ]
    wrong = [line.replace("E + 3", "E + 2").replace("m + 3", "m + 2") for line in right]
    with Verifier(workers=1) as verifier:
        programs = tuple("\n".join([names, *lines]) for lines in (right, wrong))
        outcomes = verifier.run([Request(prefix="", candidates=programs)])[0]
    assert [outcome.output.strip() for outcome in outcomes] == ["374 0", "373 1"]
