"""Search with `published_faults` reproduces trees and data selections of the released rStar-Math code, node by node.

The files are no part of the repository: RSTAR_GOLDEN_TREES names their folder.
"""

import dataclasses
import json
import os
import pathlib
import re

import numpy as np
import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.search import Kind, SearchConfig, best, search_all
from rstar_jax.search.expansion import TOO_DEEP
from rstar_jax.search.protocols import Step
from rstar_jax.search.published_selection import (
    PublishedSelection,
    edit_distance,
    keeps,
    pair_candidates,
    policy_rows,
    preference_pairs,
    ranked_trajectories,
)
from rstar_jax.search.tree import ROOT_INDEX, UNKNOWN
from rstar_jax.trajectory import steps
from rstar_jax.verifier.protocol import Outcome, Verdict

from . import scripted

_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "official" / "golden_trees"
FOLDER = pathlib.Path(os.environ.get("RSTAR_GOLDEN_TREES", _BESIDE))
MODES = {"terminal_guided": "terminal", "ppm_sampling": "ppm", "test_time": "test", "greedy": "none"}
FAILURES = ("Too many consecutive steps have code errors.", "Fail to sove the problem within limited steps.")
needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden trees: set RSTAR_GOLDEN_TREES to their folder")


def files(*prefixes):
    return sorted(path for prefix in prefixes for path in FOLDER.glob(f"{prefix}_*.json"))


class Recorded(scripted.AtOnce):
    """The policy, the PPM, the verifier and the grader of one file.

    Programs are looked up by the node whose expansion asks for them and their place among its children: the same
    program did not always end in the same way.
    """

    def __init__(self, record):
        self.record = record
        self.nodes = record["tree"]
        self.prompt = steps.prompt(record["question"])
        self.tags = ["0"]  # by index in the tree
        self.expanded = None
        self.children = {tag: [] for tag in self.nodes}
        for tag, node in self.nodes.items():
            if node["parent"] is not None:
                self.children[node["parent"]].append(tag)

    def encode(self, text):
        return scripted.encode(text)

    def expand(self, prefixes, n, *, stops):
        (prefix,) = prefixes
        self.expanded = self.tags[prefix.key[1]]
        self.tags += self.children[self.expanded]
        return [[self.step(**sampled) for sampled in self.record["policy"][prefix.text.removeprefix(self.prompt)]]]

    def step(self, text, stop_reason):
        return Step(
            text=text + (stop_reason or ""),
            tokens=scripted.encode(text + (stop_reason or "")),
            logprob=0.0,
            stop=stop_reason or "",
        )

    def score(self, prefixes, candidates):
        reward = self.record["reward"]
        return [
            np.tanh(
                np.array(
                    [reward[prefix.text.removeprefix(self.prompt) + scripted.decode(tokens)] for tokens in row],
                    np.float32,
                )
                / np.float32(5)
            )
            for prefix, row in zip(prefixes, candidates, strict=True)
        ]

    def submit(self, *asked, **settings):
        if settings:  # for samples
            return super().submit(*asked, **settings)
        (request,) = asked
        if isinstance(request, tuple):  # an answer, to be graded
            future = scripted.Future()
            future.set_result(self.record["grades"][request[1]])
            return future
        run = [self.nodes[tag] for tag in self.children[self.expanded] if "observation" in self.nodes[tag]]
        assert len(run) == len(request.candidates)
        future = scripted.Future()
        future.set_result([self.outcome(node["observation"]) for node in run])
        return future

    def outcome(self, observation):
        if re.match(r"\w*(Error|Exception|StopIteration)\b.*:", observation):
            return Outcome(verdict=Verdict.ERROR, error=observation)
        return Outcome(verdict=Verdict.OK, output=observation)


def grow(path):
    """The tree of a file, and the tags of its nodes by their index."""
    record = json.loads(path.read_text())
    world = Recorded(record)
    released = record["config"]
    mode = MODES[record["mode"]]
    config = SearchConfig(
        candidates=released["n_generate_sample"],
        rollouts=released["iterations"],
        max_depth=released["max_depth"],
        exploration=released["c_puct"],
        value_mode=mode,
        max_consecutive_errors=released["errors_threshold"],
        max_prefix_tokens=100_000,
        first_answer_only=True,
        unvisited="zero",
        exhaustion="by_level",
        published_faults=True,
    )
    (tree,) = search_all(
        [Problem(id=path.stem, question=record["question"], answers=(record["ground_truth"],))],
        sampler=world,
        verifier=world,
        grader=world if config.sees_answers else None,
        scorer=world if config.needs_scorer else None,
        config=config,
        stops=released["stop"],
    )
    tags = {ROOT_INDEX: "0"}
    for node in range(tree.size):
        tags.update((child, f"{tags[node]}.{i}") for i, child in enumerate(tree.children(node), start=1))
    return record, tree, tags


@needs_files
@pytest.mark.parametrize("path", files(*MODES), ids=lambda path: path.stem)
def test_tree_of_the_released_code(path):
    record, tree, tags = grow(path)
    assert set(tags.values()) == set(record["tree"])
    for node, tag in tags.items():
        expected = record["tree"][tag]
        assert tree.visits[node] == expected["visit_count"], tag
        assert tree.q(node) == pytest.approx(expected["q_value"], abs=1e-6), tag
        assert tree.value[node] == pytest.approx(expected["value"], abs=1e-6), tag
        assert tree.depth[node] == expected["depth"], tag
        assert tree.consecutive_errors[node] == expected["consecutive_errors"], tag
        assert tree.exhausted[node] == expected["is_terminal"], tag
        if tree.kind[node] == Kind.ANSWER:
            assert tree.answer[node] == expected["final_answer"], tag
            assert tree.correct[node] == (expected["correct"] if record["config"]["is_sampling"] else UNKNOWN), tag
        elif tree.kind[node] == Kind.FAILED:
            assert expected["final_answer"] == FAILURES[tree.error[node] == TOO_DEEP], tag
        else:
            assert expected["final_answer"] == "", tag
        if tree.kind[node] != Kind.FAILED and node != ROOT_INDEX:
            assert tree.text[node] == expected["text"], tag
    if record.get("answer"):
        q = tree.q(best(tree))
        assert record["answer"]["tag"] in [tags[leaf] for leaf in tree.answers() if tree.q(leaf) == q]


@needs_files
@pytest.mark.parametrize("path", files("data_selection"), ids=lambda path: path.stem)
def test_data_selection_of_the_released_code(path):
    record = json.loads(path.read_text())
    names = record["trees"]
    released = record["config"]
    config = PublishedSelection(
        margin=released["min_step_margin"],
        edit_distance=released["min_edit_distance"],
    )
    grown = [grow(path.parent / name) for name in names]
    trees = [tree for _, tree, _ in grown]

    rows = policy_rows(trees, released["sft_top_n"], seed=released["sft_shuffle_seed"])
    assert [{"query": question, "response": response} for question, response in rows] == record["sft"]

    ranks = {}
    for question in {tree.problem.question for tree in trees}:
        own = [index for index, tree in enumerate(trees) if tree.problem.question == question]
        for rank, (index, leaf) in enumerate(ranked_trajectories([trees[index] for index in own]), start=1):
            _, tree, tags = grown[own[index]]
            q = [tree.q(node) for node in tree.path(leaf)[1:]]
            ranks[names[own[index]], tags[leaf]] = (rank, pytest.approx(np.mean(q)), pytest.approx(min(q)))
    assert ranks == {
        (trace["tree"], trace["leaf"]): (trace["rank"], trace["mean_q"], trace["min_q"])
        for trace in record["traces"]
        if trace["final_q"] == 1
    }

    for follow, expected in (("all", "pair_candidates"), ("most_visited", "pair_candidates_vis_count")):
        found = []
        for name, (_, tree, tags) in zip(names, grown, strict=True):
            for pair in pair_candidates(tree, follow=follow):
                texts = tree.text[pair.chosen], tree.text[pair.rejected]
                found.append(
                    {
                        "tree": name,
                        "prefix": tags[pair.prefix],
                        "chosen": tags[pair.chosen],
                        "rejected": tags[pair.rejected],
                        "step_margin": pytest.approx(pair.margin),
                        "steps_margin": pytest.approx(pair.solution_margin),
                        "edit_distance": edit_distance(*texts),
                        "pos_count": pair.positives,
                        "neg_count": pair.negatives,
                        "kept": keeps(tree, pair, config),
                    }
                )
        assert found == record[expected]

    pairs = [(tree, pair) for tree in trees for pair in preference_pairs(tree, config)]
    assert [(pair.chosen, pair.rejected, pair.weight) for _, pair in pairs] == [
        (pair["pos"], pair["neg"], 1 / (pair["pos_count"] * pair["neg_count"])) for pair in record["pairs"]
    ]
    assert [steps.prompt(tree.problem.question) + pair.prefix for tree, pair in pairs] == [
        pair["prompt"] for pair in record["pairs"]
    ]
    most_visited = dataclasses.replace(config, follow="most_visited")
    assert sum(len(preference_pairs(tree, most_visited)) for tree in trees) == record["pairs_vis_count_total"]
