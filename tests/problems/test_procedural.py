"""Procedural problems: worked examples are right, splits do not overlap, the data set keeps what it was given."""

import re

import pytest

from rstar_jax.problems import datasets, procedural
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Request, Verifier


@pytest.mark.parametrize("family", procedural.FAMILIES)
def test_worked_examples_give_the_generators_answer(family):
    problems = [
        problem
        for level in procedural.LEVELS
        for problem in procedural.generate(family, level, 15, split="test", seed=1)
    ]
    with Verifier(workers=1) as verifier:
        programs = tuple("\n".join(procedural.worked_program(problem)) for problem in problems)
        outcomes = verifier.run([Request(prefix="", candidates=programs)])[0]
    assert [outcome.output.strip() for outcome in outcomes] == [problem.answer for problem in problems]
    for problem in problems:
        assert steps.boxed_answer(procedural.worked_example(problem)) == problem.answer
        assert not re.search(r"\b0\b", problem.question)  # a term that may be skipped and nobody sees it


def test_levels_have_more_and_more_steps():
    means = []
    for level in procedural.LEVELS:
        programs = [
            procedural.worked_program(p) for p in procedural.generate("chain_sum", level, 20, split="test", seed=1)
        ]
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
        families=("chain_sum", "leg_counting"), bootstrap=(30, 4, 2, 1), rounds=((2, 5, 5, 5), (2, 5, 5, 5)), heldout=6
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
    with pytest.raises(ValueError, match="'algebra' is not one of"):
        procedural.ProceduralProblems(families=("algebra",), bootstrap=(1, 1, 1, 1), rounds=(), heldout=1)
    with pytest.raises(ValueError, match="expected 4 counts"):
        procedural.ProceduralProblems(families=("chain_sum",), bootstrap=(1, 1), rounds=(), heldout=1)
