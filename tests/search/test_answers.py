"""Choosing answers, sampling without a tree."""

import dataclasses
import itertools
import math
import random

import numpy as np
import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.search import (
    ScoredAnswer,
    VoteConfig,
    best,
    choose,
    equivalence_classes,
    pass_at_k,
    sample_solutions,
    solution_answers,
    tree_answers,
    uct,
    vote,
)
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree
from rstar_jax.trajectory import markers

from . import scripted
from .scripted import step


def test_best_is_the_answer_with_the_highest_q():
    tree = Tree(Problem(id="p", question="q", answers=()), key=0, prompt="", prompt_tokens=())
    assert best(tree) is None
    for text, value in (("a", 0.1), ("b", 0.7), ("c", 0.7)):
        leaf = tree.add(ROOT_INDEX, Node(text=text, tokens=(), kind=Kind.ANSWER, answer=text))
        uct.backup(tree, leaf, value)
    tree.update(tree.add(ROOT_INDEX, Node(text="d", tokens=(), kind=Kind.STEP)), 0.9)
    assert best(tree) == 2
    assert tree_answers(tree, 2) == scored(("b", 0.7), ("c", 0.7))
    assert tree_answers(tree, 9) == scored(("b", 0.7), ("c", 0.7), ("a", 0.1))


def scored(*answers):
    return [ScoredAnswer(answer=answer, score=score) for answer, score in answers]


class Numbers(scripted.Grader):
    """Numbers are equal if their values are; a decimal of two digits may stand for a fraction, as with the grader."""

    calls = 0

    def grade(self, pairs):
        self.calls += 1
        self.pairs += pairs
        return [self._equal(gold, answer) for gold, answer in pairs]

    def _equal(self, gold, answer):
        if "?" in (gold, answer):
            return None
        if "/" in gold:
            return gold == answer or answer == f"{eval(gold):.2f}"
        return float(gold) == float(answer) if "/" not in answer else None


def chosen(answers, **config):
    return vote([answers], Numbers(), VoteConfig(**config))[0]


ANSWERS = scored(("7", 0.5), ("8", 0.9), ("7.0", 0.2), ("9", -0.6), ("9", -0.7), ("9.0", -0.8), ("8", -0.9))


def test_each_rule_on_answers_by_hand():
    assert chosen(ANSWERS, rule="best") == "8"
    assert chosen(ANSWERS, rule="majority") == "9"
    assert chosen(ANSWERS, rule="top_majority", top=3) == "7"  # of 8, 7 and 7.0
    assert chosen(ANSWERS, rule="top_majority", top=5) == "7"  # 8, 7, 7.0, 9, 9: two each, and 7 weighs more
    assert chosen(ANSWERS, rule="weighted_majority") == "7"  # 0.75 + 0.6, against 0.95 + 0.05 and 0.2 + 0.15 + 0.1
    for rule in ("best", "majority", "top_majority", "weighted_majority"):
        assert chosen([], rule=rule) is None
        assert chosen(scored(("?", 0.0)), rule=rule) == "?"


def test_a_tie_goes_to_the_larger_scores_and_without_scores_to_the_first():
    assert chosen(scored(("1", 0.0), ("2", 0.1), ("2", 0.1), ("1", 0.0)), rule="majority") == "2"
    assert chosen(scored(("1", 0.0), ("2", 0.0), ("2", 0.0), ("1", 0.0)), rule="majority") == "1"


def test_a_vote_does_not_depend_on_the_order_of_answers_with_scores_of_their_own():
    rng = random.Random(0)
    for _ in range(30):
        answers = scored(*((rng.choice(["1", "1.0", "2", "3", "3.00"]), rng.uniform(-1, 1)) for _ in range(9)))
        for rule in ("best", "majority", "top_majority", "weighted_majority"):
            first = chosen(answers, rule=rule)
            assert {chosen(rng.sample(answers, len(answers)), rule=rule) for _ in range(5)} == {first}


def test_classes_are_those_of_comparing_one_after_another():
    rng, grader = random.Random(1), Numbers()
    texts = ["1/3", "0.33", "1", "1.0", "2", "2.00", "?", "0.5", "1/2"]
    rows = [[rng.choice(texts) for _ in range(rng.randrange(12))] for _ in range(20)]
    expected = []
    for row in rows:
        firsts, own = [], []
        for answer in row:
            equal = (answer == first or True in grader.grade([(first, answer), (answer, first)]) for first in firsts)
            number = next((number for number, found in enumerate(equal) if found), len(firsts))
            firsts += [answer] * (number == len(firsts))
            own.append(number)
        expected.append(own)
    grader = Numbers()
    assert equivalence_classes(rows, grader) == expected
    assert grader.calls <= max(max(own, default=0) for own in expected) + 1, "one call for all problems and a class"
    assert all(gold != answer for gold, answer in grader.pairs), "equal texts are not asked"


def test_votes_ask_nothing_if_the_best_wins():
    grader = Numbers()
    assert vote([ANSWERS, []], grader, VoteConfig(rule="best")) == ["8", None]
    assert not grader.calls


def test_the_chosen_is_the_best_of_its_class():
    assert choose(scored(("1/2", 0.1), ("0.5", 0.3), ("4", 0.9)), [0, 0, 1], VoteConfig(rule="majority")) == "0.5"


def test_votes_of_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="rule must be one of"):
        VoteConfig(rule="median")
    with pytest.raises(ValueError, match="top must be at least 1"):
        VoteConfig(top=0)


def test_pass_at_k_is_the_share_of_subsets_with_a_hit():
    n, correct = 7, 3
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), k))
        share = sum(min(subset) < correct for subset in subsets) / len(subsets)
        assert math.isclose(pass_at_k(n, correct, k), share)
    assert pass_at_k(5, 0, 5) == 0
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(4, 1, 5)


def solve(sampler, verifier=None, n=4, **changes):
    arguments = {"max_prefix_tokens": 2000, "seed": 1} | changes
    return sample_solutions(
        scripted.problems(3), n, sampler=sampler, verifier=verifier or scripted.Verifier(), **arguments
    )


def test_solutions_are_block_output_answer():
    verifier = scripted.Verifier()
    rows = solve(scripted.Sampler(), verifier)
    assert [len(row) for row in rows] == [4, 4, 4]
    for row in rows:
        for solution in row:
            assert solution.ok and solution.logprob == -2.0
            assert solution.text.startswith(markers.CODE) and solution.text.endswith(markers.END_OF_ANSWER)
            assert f"{markers.OUTPUT}{solution.answer}{markers.END_OF_OUTPUT}" in solution.text
            assert solution.tokens == scripted.encode(solution.text)
    assert all(len(set(request.candidates)) == len(request.candidates) for request in verifier.requests)


def test_samples_do_not_depend_on_the_batch():
    one = sample_solutions(
        scripted.problems(3)[2:],
        4,
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(jitter=0.003),
        max_prefix_tokens=2000,
        seed=1,
    )
    assert one == solve(scripted.Sampler())[2:]


def test_a_tight_budget_leaves_no_answer():
    for row in solve(scripted.Sampler(), max_prefix_tokens=10):
        assert all(solution.answer is None and not solution.ok for solution in row)


class Given(scripted.Sampler):
    """Samples the given blocks, then answers."""

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = blocks

    def expand(self, prefixes, n, *, stops):
        if markers.END_OF_OUTPUT in prefixes[0].text:
            return super().expand(prefixes, n, stops=stops)
        return [list(self.blocks) for _ in prefixes]


def test_other_ends():
    blocks = (
        step("<answer>\\boxed{7}", markers.END_OF_ANSWER),
        step("<code>\n1 / 0\n", markers.END_OF_CODE),
        step("<code>\nx = 1", "length"),
    )
    direct, failing, cut = solve(Given(*blocks), n=3)[0]
    assert (direct.answer, direct.ok) == ("7", True)
    assert "<output>ZeroDivisionError: division by zero<end_of_output>" in failing.text
    assert failing.answer is not None and not failing.ok
    assert (cut.answer, cut.ok, cut.text) == (None, False, "<code>\nx = 1")


class ByLength(scripted.Scorer):
    """Longer solutions score lower."""

    def score(self, prefixes, candidates):
        super().score(prefixes, candidates)
        return [np.array([1 - len(tokens) / 500 for tokens in row], np.float32) for row in candidates]


def test_best_of_n_scores_whole_solutions_once():
    blocks = (
        step("<answer>so it is \\boxed{7}", markers.END_OF_ANSWER),
        step("<answer>\\boxed{8}", markers.END_OF_ANSWER),
        step("<code>\nx = 1", "length"),
        step("<answer>so it is \\boxed{7}", markers.END_OF_ANSWER),
    )
    sampler, scorer = Given(*blocks), ByLength()
    rows = solve(sampler)
    answers = solution_answers(scripted.problems(3), rows, sampler=sampler, scorer=scorer, seed=1)
    assert [[own.answer for own in row] for row in answers] == [["7", "8", "7"]] * 3
    assert scorer.scored == [rows[0][0].text, rows[0][1].text] * 3
    assert vote(answers, Numbers(), VoteConfig(rule="best")) == ["8"] * 3
    plain = solution_answers(scripted.problems(3), rows, sampler=sampler, seed=1)
    assert plain == [[dataclasses.replace(own, score=0.0) for own in row] for row in answers]
    assert vote(plain, Numbers(), VoteConfig(rule="majority")) == ["7"] * 3
