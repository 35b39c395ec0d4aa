"""False positives on fresh numbers, pair accuracy."""

import numpy as np

from rstar_jax import evaluation
from rstar_jax.problems import Problem
from rstar_jax.problems.families import FAMILIES
from rstar_jax.search import Kind, Tree, correct_trajectories
from rstar_jax.search.tree import Node
from rstar_jax.verifier import Verifier


def problem(level="2", question="State the final answer to the following arithmetic problem: 3 + 4 + 4 - 4 ="):
    return Problem(id="p", question=question, answers=("7",), level=level, source="chain_sum")


def tree_of(*lines):
    """A tree with one correct trajectory whose steps are `lines`."""
    tree = Tree(problem(), key=1, prompt="", prompt_tokens=())
    node = 0
    for line in lines:
        node = tree.add(node, Node(text=f"\n{line}\n<end_of_step>", tokens=(1,), kind=Kind.STEP, verdict="ok"))
    node = tree.add(node, Node(text="\n<answer>\\boxed{7}<end_of_answer>", tokens=(1,), kind=Kind.ANSWER, answer="7"))
    tree.correct[node] = 1
    return tree


def test_equal_numbers_stay_equal_on_fresh_numbers():
    fresh = FAMILIES["chain_sum"].fresh
    program = fresh("a = 3 + 4\nb = a - 4", "", 0)
    one, two, three = (int(word) for word in program.replace("\n", " ").split() if word.isdigit())
    assert two == three and one != two
    assert program != fresh("a = 3 + 4\nb = a - 4", "", 1)


def test_a_right_answer_by_a_wrong_program_is_found():
    right = tree_of("a = 3 + 4", "b = a + 4", "c = b - 4", "print(c)")
    reordered = tree_of("a = 4 - 4", "b = a + 4", "c = b + 3", "print(c)")
    lucky = tree_of("a = 4 + 4", "b = a - 1", "print(b)")
    with Verifier(workers=1) as verifier:
        chosen = {
            name: (tree, *correct_trajectories(tree))
            for name, tree in (("right", right), ("reordered", reordered), ("lucky", lucky))
        }
        assert evaluation.wrong_programs([chosen["right"], chosen["reordered"]], verifier) == (0, 2)
        assert evaluation.wrong_programs([chosen["right"], chosen["lucky"]], verifier) == (1, 2)
        assert evaluation.wrong_programs([], verifier) == (0, 0)


def test_pair_accuracy_by_kind():
    class Scorer:
        def score(self, prefixes, candidates):
            return [np.array([len(tokens) for tokens in own]) for own in candidates]

    class Letters:
        def encode(self, text):
            return tuple(map(ord, text))

    row = {"question": "q", "prefix": "", "kind": "step"}
    rows = [
        {**row, "chosen": "long", "rejected": "x"},
        {**row, "chosen": "x", "rejected": "long"},
        {**row, "chosen": "ab", "rejected": "cd", "kind": "trajectory"},
    ]
    accuracy = evaluation.pair_accuracy([rows], Scorer(), Letters())
    assert accuracy == {None: (0.5, 3), "step": (0.5, 2), "trajectory": (0.5, 1)}
