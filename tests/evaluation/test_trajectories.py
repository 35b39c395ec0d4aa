"""Several trajectories: what is chosen, that no gold is seen before, and the curve of prefix subsets."""

import dataclasses
import itertools

import pytest

from rstar_jax import evaluation
from rstar_jax.evaluation.trajectories import PASS
from rstar_jax.problems import Problem
from rstar_jax.search import RULES, Kind, SchedulerConfig, Tree, VoteConfig, best, uct
from rstar_jax.search.tree import Node
from tests.search import scripted

CONFIG = dataclasses.replace(scripted.CONFIG, value_mode="test", rollouts=4)


def searched(problems, trajectories, config=CONFIG):
    return evaluation.search_trees(
        problems,
        config=config,
        trajectories=trajectories,
        sampler=scripted.Sampler(),
        scorer=scripted.Scorer(),
        verifier=scripted.Verifier(),
        seed=5,
        scheduling=SchedulerConfig(in_flight=7),
    )


def tree_of(*answers):
    """A searched tree with these (answer, value)."""
    tree = Tree(Problem(id="p", question="q", answers=()), key=1, prompt="", prompt_tokens=())
    for answer, value in answers:
        leaf = tree.add(0, Node(text=f"{answer} {value}", tokens=(1,), kind=Kind.ANSWER, answer=answer))
        uct.backup(tree, leaf, value)
    return tree


TREES = [
    [tree_of(("8", 0.9), ("7", 0.8)), tree_of(("7", 0.5), ("7", 0.4)), tree_of(), tree_of(("7", -0.5), ("8", -0.9))]
]


@pytest.mark.parametrize(
    "config, answers",
    [
        (VoteConfig(rule="best"), ["8", "8", "8", "8"]),
        (VoteConfig(rule="majority"), ["8", "8", "8", "7"]),
        (VoteConfig(rule="top_majority", top=2), ["8", "8", "8", "8"]),
        (VoteConfig(rule="weighted_majority"), ["8", "8", "8", "7"]),
        (VoteConfig(rule="majority", answers_per_tree=2), ["8", "7", "7", "7"]),
        (VoteConfig(rule="top_majority", top=3, answers_per_tree=2), ["8", "7", "7", "7"]),
    ],
)
def test_rules_on_trees_by_hand(config, answers):
    chosen = [evaluation.search_answers([TREES[0][:n]], scripted.Grader(), config)[0] for n in (1, 2, 3, 4)]
    assert chosen == answers
    curve = evaluation.scaling_curve([Problem(id="p", question="q", answers=("7",))], TREES, scripted.Grader(), config)
    right = {n: [float(answers[n - 1] == "7")] for n in (1, 2, 4)}
    assert curve[config.rule] == right


def test_pass_counts_the_best_answer_of_each_trajectory():
    (curve,) = [
        evaluation.scaling_curve(
            [Problem(id="p", question="q", answers=("7",))], TREES, scripted.Grader(), VoteConfig()
        )
    ]
    firsts = ["8", "7", None, "7"]
    for size, (value,) in curve[PASS].items():
        subsets = list(itertools.combinations(firsts, size))
        assert value == pytest.approx(sum("7" in own for own in subsets) / len(subsets))


def test_the_curve_of_one_search_is_that_of_many():
    problems = scripted.problems(8)
    grader, config = scripted.Grader(), VoteConfig(top=3, answers_per_tree=2)
    golds = [problem.answers for problem in problems]
    curve = evaluation.scaling_curve(problems, searched(problems, 6), grader, config)
    for rule in RULES:
        assert list(curve[rule]) == [1, 2, 4, 6]
        for size, own in curve[rule].items():
            vote = dataclasses.replace(config, rule=rule)
            answers = evaluation.search_answers(searched(problems, size), grader, vote)
            assert own == evaluation.grade_answers(golds, answers, grader), (rule, size)
    assert any(curve["best"][6] != own for own in curve["best"].values())
    assert all(
        max(own) >= value for own, value in zip(zip(*curve[PASS].values(), strict=True), curve[PASS][1], strict=True)
    )


def test_with_one_trajectory_every_rule_chooses_what_the_scorer_values_most():
    trees = searched(scripted.problems(8), 1)
    expected = [None if (leaf := best(tree)) is None else tree.answer[leaf] for (tree,) in trees]
    assert any(expected)
    for rule in RULES:
        assert evaluation.search_answers(trees, scripted.Grader(), VoteConfig(rule=rule)) == expected


def test_answers_are_chosen_before_any_gold_is_seen():
    problems = [
        dataclasses.replace(problem, answers=("SECRET",), solution="SECRET") for problem in scripted.problems(6)
    ]
    trees = searched(problems, 4)
    assert "SECRET" not in repr([tree.to_dict() for row in trees for tree in row])
    for rule in RULES:
        grader = scripted.Grader()
        chosen = evaluation.search_answers(trees, grader, VoteConfig(rule=rule, answers_per_tree=3))
        assert "SECRET" not in repr(grader.pairs)
        assert bool(grader.pairs) == (rule != "best")
        honest = searched(scripted.problems(6), 4)
        assert chosen == evaluation.search_answers(honest, grader, VoteConfig(rule=rule, answers_per_tree=3))
    grader = scripted.Grader()
    evaluation.scaling_curve(problems, trees, grader, VoteConfig(answers_per_tree=3))
    seen = [pair[0] == ("SECRET",) for pair in grader.pairs]
    assert seen == sorted(seen) and set(seen) == {False, True}, "all votes come before all golds"


def test_a_beam_may_be_every_trajectory():
    config = dataclasses.replace(CONFIG, beam_width=2)
    problems = scripted.problems(6)
    trees = searched(problems, 3, config)
    answers = evaluation.search_answers(trees, scripted.Grader(), VoteConfig(rule="weighted_majority"))
    assert sum(answer is not None for answer in answers) > 3
    assert [[tree.to_dict() for tree in row[:1]] for row in trees] == [
        [tree.to_dict() for tree in row] for row in searched(problems, 1, config)
    ]
