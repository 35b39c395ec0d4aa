"""What holds for every search, whatever its rules: visits, values, expansions, and rollouts in flight."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar_jax.search import SearchConfig, Tree, search_all, uct
from rstar_jax.search.config import EXHAUSTION_RULES, UNVISITED_RULES
from rstar_jax.search.expansion import Run, Sample, expand
from rstar_jax.search.mcts import rollout, search_tree
from rstar_jax.search.scheduler import plant
from rstar_jax.search.tree import ROOT_INDEX, UNVISITED, Kind
from rstar_jax.trajectory import markers

from . import scripted

CONFIGS = st.builds(
    SearchConfig,
    candidates=st.integers(1, 5),
    rollouts=st.integers(1, 12),
    max_depth=st.integers(2, 6),
    exploration=st.floats(0.0, 3.0),
    value_mode=st.sampled_from(["terminal", "ppm", "test"]),
    max_consecutive_errors=st.integers(1, 2),
    max_prefix_tokens=st.sampled_from([300, 2000]),
    first_answer_only=st.booleans(),
    unvisited=st.sampled_from(UNVISITED_RULES),
    exhaustion=st.sampled_from(EXHAUSTION_RULES),
    rollouts_in_flight=st.integers(1, 4),
)
QUESTIONS = st.integers(0, 30)
SEEDS = st.integers(0, 1000)


class Played:
    """One search, and what was asked."""

    def __init__(self, question, config, seed):
        self.sampler, self.scorer = scripted.Sampler(), scripted.Scorer()
        self.world = {
            "sampler": self.sampler,
            "verifier": scripted.Verifier(),
            "grader": scripted.Grader() if config.sees_answers else None,
            "scorer": self.scorer if config.needs_scorer else None,
        }
        (self.tree,) = search_all(scripted.problems(question + 1)[-1:], config=config, seed=seed, **self.world)
        self.expanded = [prefix.key[1] for prefix in self.sampler.asked]


class World:
    """Answers a search or an expansion by hand. Remembers how many nodes were expanded together."""

    def __init__(self, config):
        self.config = config
        self.widths = []

    def answer(self, asking):
        ask = next(asking, None)
        while ask is not None:
            try:
                ask = asking.send(self.reply(ask))
            except StopIteration:
                return

    def reply(self, ask):
        if isinstance(ask, Sample):
            self.widths.append(len(ask.prefixes))
            return scripted.Sampler().expand(ask.prefixes, self.config.candidates, stops=markers.STEP_STOPS)
        if isinstance(ask, Run):
            return [scripted.Verifier().submit(request).result() for request in ask.requests]
        return scripted.Scorer().score(ask.prefixes, ask.candidates), scripted.Grader().grade(ask.answers)


def has_own_visit(tree, node, config):
    """Whether one of a node's visits is of the node alone: a PPM value, the -1 of a failure."""
    return tree.kind[node] == Kind.FAILED or (config.needs_scorer and tree.kind[node] in (Kind.STEP, Kind.CODE))


@settings(max_examples=60, deadline=None)
@given(QUESTIONS, CONFIGS, SEEDS)
def test_visits_values_and_expansions(question, config, seed):
    played = Played(question, config, seed)
    tree = played.tree
    q = np.array([tree.q(node) for node in range(tree.size)])
    assert (np.abs(q) <= 1 + 1e-12).all() and (np.abs(tree.value) <= 1).all()
    for node in range(tree.size):
        if tree.kind[node] != Kind.ANSWER:
            shared = sum(int(tree.visits[child]) - has_own_visit(tree, child, config) for child in tree.children(node))
            assert tree.visits[node] == has_own_visit(tree, node, config) + shared
    assert len(set(played.expanded)) == len(played.expanded), "a node is expanded once"
    assert sorted(played.expanded) == [node for node in range(tree.size) if tree.children(node)]
    assert not any(tree.is_terminal(node) for node in played.expanded)
    for node in played.expanded:
        if config.exhaustion == "at_once":
            assert tree.exhausted[node] == all(tree.exhausted[child] for child in tree.children(node))
        elif tree.exhausted[node]:
            assert all(tree.exhausted[child] for child in tree.children(node))


@settings(max_examples=40, deadline=None)
@given(QUESTIONS, CONFIGS, SEEDS)
def test_one_rollout_in_flight_is_the_plain_search(question, config, seed):
    config = dataclasses.replace(config, rollouts_in_flight=1)
    played = Played(question, config, seed)
    problem = scripted.problems(question + 1)[-1]
    tree = plant(problem, sampler=scripted.Sampler(), config=config, seed=seed)
    world = World(config)
    for _ in range(config.rollouts):
        node = ROOT_INDEX
        while not tree.exhausted[node]:
            if not tree.children(node):
                world.answer(expand(tree, [node], config, scripted.encode))
                if tree.exhausted[node] or tree.has_answer(node):
                    break
            child = uct.select(tree, node, config.exploration, unvisited=config.unvisited)
            if child == UNVISITED:
                tree.exhausted[node] = True
                break
            node = child
    assert tree.to_dict() == played.tree.to_dict()


@settings(max_examples=40, deadline=None)
@given(QUESTIONS, CONFIGS, SEEDS)
def test_virtual_loss_leaves_no_trace(question, config, seed):
    """After a search a tree holds what its scores, its failures and its answers give, and nothing else."""
    tree = Played(question, config, seed).tree
    again = Tree.from_dict(tree.to_dict())
    again.visits[:] = 0
    again.value_sum[:] = 0
    for node in range(1, tree.size):
        if tree.kind[node] == Kind.ANSWER:
            uct.backup(again, node, tree.value[node])
        elif has_own_visit(tree, node, config):
            again.update(node, tree.value[node])
    assert again.visits.tolist() == tree.visits.tolist()
    assert again.value_sum.tolist() == pytest.approx(tree.value_sum.tolist())


def test_rollouts_in_flight_expand_together_and_part():
    config = dataclasses.replace(scripted.CONFIG, rollouts=12, rollouts_in_flight=4)
    tree = plant(scripted.problems(9)[-1], sampler=scripted.Sampler(), config=config, seed=0)
    world = World(config)
    world.answer(search_tree(tree, config, scripted.encode))
    assert max(world.widths) > 1, "virtual loss sends rollouts to different nodes"


def test_nobody_is_in_flight_after_a_rollout():
    tree = plant(scripted.problems(9)[-1], sampler=scripted.Sampler(), config=scripted.CONFIG, seed=0)
    in_flight = collections.Counter()
    world = World(scripted.CONFIG)
    going = [rollout(tree, scripted.CONFIG, in_flight) for _ in range(2)]
    while nodes := [node for descent in going if (node := next(descent, None)) is not None]:
        assert in_flight[ROOT_INDEX] == len(nodes)
        world.answer(expand(tree, list(dict.fromkeys(nodes)), scripted.CONFIG, scripted.encode))
    assert not any(in_flight.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unvisited": "one"}, "unvisited must be one of"),
        ({"exhaustion": "never"}, "exhaustion must be one of"),
        ({"rollouts_in_flight": 0}, "rollouts_in_flight must be at least 1"),
        ({"rollouts_in_flight": 2, "published_faults": True}, "must be 1 with published_faults"),
        ({"exploration": -1.0}, "exploration must not be negative"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(scripted.CONFIG, **changes)
