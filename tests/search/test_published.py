"""The released code's reading of a step and its selection, by hand; that gin/search/published.gin turns both on."""

import dataclasses

import pytest

import gin
from rstar_jax import configuration
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.search import (
    PublishedSelection,
    SearchConfig,
    correct_trajectories,
    published,
    published_selection,
    search_all,
)
from rstar_jax.search.expansion import TOO_DEEP
from rstar_jax.search.tree import Kind
from rstar_jax.trajectory import markers
from rstar_jax.verifier.protocol import Outcome, Verdict

from . import scripted
from .scripted import step
from .test_selection import garden

ANSWER, CODE = markers.END_OF_ANSWER, markers.END_OF_CODE
CONFIG = dataclasses.replace(
    scripted.CONFIG,
    first_answer_only=True,
    unvisited="zero",
    exhaustion="by_level",
    published_faults=True,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is \\boxed{4}.", "4"),
        ("<answer>We know x is 3.\nSo \\boxed{4}.", "<answer>We know x is 3"),
        ("\\boxed{1} and \\boxed{\\frac{1}{2}} or so", "\\frac{1}{2}"),
        ("\\boxed{24 \\text{ minutes}}", "24 minutes"),
        ("\\boxed{1 \\text{and} 2}", "1  2"),
        ("\\boxed{}", ""),
        ("a boxed set", "a boxed set"),
        ("ab \\boxed{12345", "ed{12345"),
        ("\\boxed{a_{12} + 3", "12} + 3"),
        ("\\boxed{12 \\text{min", "[invalid]"),
    ],
)
def test_answers(text, answer):
    assert published.answer(text) == answer


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(verdict=Verdict.OK, output="3\n"), False),
        (Outcome(verdict=Verdict.OK, output="margin of error: 3"), True),
        (Outcome(verdict=Verdict.ERROR, error="NameError: name 'x' is not defined"), True),
        (Outcome(verdict=Verdict.ERROR, error="StopIteration: "), False),
        (Outcome(verdict=Verdict.TIMEOUT_CPU), True),
    ],
)
def test_failures(outcome, failed):
    assert published.failed(outcome) == failed


def grow(script, **changes):
    (tree,) = search_all(
        scripted.problems(2)[-1:],  # 1 + 2
        sampler=scripted.Script(script),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=dataclasses.replace(CONFIG, **changes),
    )
    return tree


def test_what_only_the_released_code_does():
    ended, boxed, empty = step("<code>\nx = 1\n", ""), step("# so \\boxed{3}\n"), step("\\boxed{}", ANSWER)
    script = {
        "": [ended, step("<code>\nx = 1\n"), boxed],
        ended.text: [empty, step("\\boxed{3}", ANSWER)],
        ended.text + empty.text: [step("no box", ANSWER)],
    }
    tree = grow(script)
    assert tree.text[1:] == [ended.text, boxed.text, empty.text, "no box" + ANSWER]
    assert tree.kind.tolist() == [Kind.ROOT, Kind.STEP, Kind.ANSWER, Kind.STEP, Kind.FAILED]
    assert tree.correct.tolist() == [-1, -1, 1, -1, -1]
    assert tree.verdict[4] == Verdict.ERROR, "prose is run"
    assert tree.visits.tolist() == [1, 0, 1, 0, 1]
    clean = {"": [ended, boxed], boxed.text: [step("", "")]}
    ours = grow(clean, published_faults=False)
    assert ours.kind.tolist() == [Kind.ROOT, Kind.FAILED, Kind.STEP, Kind.FAILED]


def test_the_first_rollout_stops_a_level_earlier():
    chain = [step(f"<code>\nx{i} = 1\n") for i in range(4)]
    texts = ["".join(one.text for one in chain[:i]) for i in range(4)]
    script = {texts[i]: [chain[i]] for i in range(4)}
    assert grow(script, max_depth=2, rollouts=1).depth.max() == 2
    tree = grow(script, max_depth=2, rollouts=2)
    assert tree.depth.max() == 3 and tree.error[3] == TOO_DEEP and tree.verdict[3] == Verdict.OK


def test_a_search_that_nobody_judges():
    first, closing = step("<code>\nx = 3\n"), step("print(x)\n", CODE)
    closed = first.text + closing.text + "\n<output>3<end_of_output>"
    answer = step("\\boxed{3}", ANSWER)
    (tree,) = search_all(
        scripted.problems(2)[-1:],
        sampler=scripted.Script({"": [first], first.text: [closing], closed: [answer]}),
        verifier=scripted.Verifier(),
        grader=None,
        config=dataclasses.replace(scripted.CONFIG, value_mode="none", candidates=1, rollouts=1),
    )
    assert [tree.answer[leaf] for leaf in tree.answers()] == ["3"]
    assert not tree.visits.any() and (tree.correct == -1).all()


def test_rows_and_pairs_of_the_released_code():
    tree = garden().tree
    assert [tree.text[leaf] for _, leaf in published_selection.ranked_trajectories([tree])] == ["c1", "a1", "a3"]
    assert [tree.text[leaf] for _, leaf in published_selection.correct_trajectories([tree], 2)] == ["c1", "a1"]
    assert [tree.text[leaf] for leaf in correct_trajectories(tree, 1)] == ["c1"]
    candidates = published_selection.pair_candidates(tree, follow="all")
    found = [(tree.text[pair.chosen], tree.text[pair.rejected], pair.positives, pair.negatives) for pair in candidates]
    # A is positive and negative; failures are neither. Under A, one wrong answer stands against both right ones.
    assert found == [("C", "B", 2, 2), ("C", "A", 2, 2), ("A", "B", 2, 2), ("a1", "a2", 2, 1), ("a3", "a2", 2, 1)]
    loose = PublishedSelection(edit_distance=1)
    assert {pair.weight for pair in published_selection.preference_pairs(tree, loose)} == {0.25, 0.5}
    assert published_selection.preference_pairs(tree, PublishedSelection()) == []
    with pytest.raises(ValueError, match="follow must be one of"):
        PublishedSelection(follow="none")


@pytest.mark.parametrize(("a", "b", "distance"), [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)])
def test_edit_distance(a, b, distance):
    assert published_selection.edit_distance(a, b) == published_selection.edit_distance(b, a) == distance


def test_the_gin_file():
    configuration.parse(["local.gin", "search/published.gin"], ["PREFIX_TOKENS=4096"])
    config = gin.get_configurable(EvolutionConfig)()
    assert isinstance(config.rounds[0].pairs, PublishedSelection)
    assert config.value_scale == 5.0
    assert config.rounds[2].passes[0].search == SearchConfig(
        candidates=12,
        rollouts=48,
        max_depth=16,
        exploration=2.0,
        value_mode="ppm",
        max_consecutive_errors=1,
        max_prefix_tokens=4096,
        first_answer_only=True,
        unvisited="zero",
        exhaustion="by_level",
        published_faults=True,
    )
    assert config.evaluation.search.config.rollouts == 12
    for scope, errors in (("bootstrap", 2), ("greedy", 3)):
        with gin.config_scope(scope):
            assert gin.get_configurable(SearchConfig)().max_consecutive_errors == errors
