"""Choosing answers, sampling without a tree."""

import itertools
import math

import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.search import best, majority, pass_at_k, sample_solutions, uct
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree
from rstar_jax.trajectory import markers

from . import scripted
from .scripted import step


def test_best_is_the_answer_with_the_highest_q():
    tree = Tree(Problem(id="p", question="q", answer=""), key=0, prompt="", prompt_tokens=())
    assert best(tree) is None
    for text, value in (("a", 0.1), ("b", 0.7), ("c", 0.7)):
        leaf = tree.add(ROOT_INDEX, Node(text=text, tokens=(), kind=Kind.ANSWER, answer=text))
        uct.backup(tree, leaf, value)
    tree.update(tree.add(ROOT_INDEX, Node(text="d", tokens=(), kind=Kind.STEP)), 0.9)
    assert best(tree) == 2


def test_majority():
    assert majority([]) is None
    assert majority(["1", "2", "2", "1"]) == "1"
    assert majority(["1", "2", "3", "2"]) == "2"
    assert majority(["1", "0.5", "1/2"], equal=lambda a, b: {a, b} == {"0.5", "1/2"} or a == b) == "0.5"


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
