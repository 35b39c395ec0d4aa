"""Search reproduces trees of the released rStar-Math code, where these show none of its faults.

The released search spends rollouts that expand nothing, because it notices exhaustion one level a rollout. They change
no value, so its tree after all its rollouts is ours after those that expanded something. The files are no part of the
repository: RSTAR_GOLDEN_TREES names their folder.
"""

import json
import os
import pathlib

import numpy as np
import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.search import Kind, SearchConfig, search
from rstar_jax.search.protocols import Step
from rstar_jax.search.tree import ROOT_INDEX
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Outcome, Verdict

from . import scripted

_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "official" / "golden_trees"
FOLDER = pathlib.Path(os.environ.get("RSTAR_GOLDEN_TREES", _BESIDE))
MODES = {"terminal_guided": "terminal", "ppm_sampling": "ppm", "test_time": "test"}


def files():
    return sorted(path for mode in MODES for path in FOLDER.glob(f"{mode}_*.json"))


class Recorded:
    """The policy, the PPM, the verifier and the grader of one file."""

    def __init__(self, record):
        self.record = record
        self.prompt = steps.prompt(record["question"])
        self.outcomes = {}
        for tag, node in record["tree"].items():
            if "observation" in node:
                self.outcomes[self.program(tag)] = self.outcome(tag)

    def sampled(self, tag):
        """What the policy wrote at a node."""
        node = self.record["tree"][tag]
        if node["parent"] is None:
            return ""
        above = "".join(self.record["tree"][part]["text"] for part in self.path(node["parent"]))
        candidate = self.record["policy"][above][node["candidate"]]
        return candidate["text"] + (candidate["stop_reason"] or "")

    def path(self, tag):
        parts = tag.split(".")
        return [".".join(parts[: i + 1]) for i in range(len(parts))]

    def program(self, tag):
        """All code of the open block down to a node."""
        codes = []
        for part in self.path(tag)[1:-1]:
            codes = [] if markers.END_OF_CODE in self.sampled(part) else [*codes, steps.code(self.sampled(part))]
        return "\n".join([*codes, steps.code(self.sampled(tag))])

    def outcome(self, tag):
        node = self.record["tree"][tag]
        if node["consecutive_errors"]:
            return Outcome(verdict=Verdict.ERROR, error=node["observation"])
        closed = markers.END_OF_CODE in self.sampled(tag)
        return Outcome(verdict=Verdict.OK, output=node["observation"] if closed else "")

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

    def submit(self, request):
        future = scripted.Future()
        above = [request.prefix] if request.prefix else []
        future.set_result([self.outcomes["\n".join([*above, code])] for code in request.candidates])
        return future

    def grade(self, pairs):
        return [self.record["grades"][answer] for _, answer in pairs]


class Policy(scripted.AtOnce):
    """What the policy of the file wrote."""

    def __init__(self, world):
        self.world = world

    def encode(self, text):
        return scripted.encode(text)

    def expand(self, prefixes, n, *, stops):
        rows = [self.world.record["policy"][prefix.text.removeprefix(self.world.prompt)] for prefix in prefixes]
        return [
            [
                Step(
                    text=candidate["text"] + (candidate["stop_reason"] or ""),
                    tokens=scripted.encode(candidate["text"] + (candidate["stop_reason"] or "")),
                    logprob=0.0,
                    stop=candidate["stop_reason"] or "",
                )
                for candidate in row
            ]
            for row in rows
        ]


@pytest.mark.skipif(not files(), reason="no golden trees: set RSTAR_GOLDEN_TREES to their folder")
@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_tree_of_the_released_code(path):
    record = json.loads(path.read_text())
    if record["quirks"]:
        pytest.skip(f"shows faults of the released code: {', '.join(record['quirks'])}")
    world = Recorded(record)
    released = record["config"]
    mode = MODES[record["mode"]]
    config = SearchConfig(
        candidates=released["n_generate_sample"],
        rollouts=sum(bool(rollout["expanded"]) for rollout in record["rollouts"]),
        max_depth=released["max_depth"],
        exploration=released["c_puct"],
        value_mode=mode,
        max_consecutive_errors=released["errors_threshold"],
        max_prefix_tokens=100_000,
        first_answer_only=True,
    )
    (tree,) = search(
        [Problem(id=path.stem, question=record["question"], answer=record["ground_truth"])],
        sampler=Policy(world),
        verifier=world,
        grader=world,
        scorer=world if mode != "terminal" else None,
        config=config,
    )
    tags = {ROOT_INDEX: "0"}
    for node in range(tree.size):
        tags.update((child, f"{tags[node]}.{i}") for i, child in enumerate(tree.children(node), start=1))
    assert set(tags.values()) == set(record["tree"])
    for node, tag in tags.items():
        expected = record["tree"][tag]
        assert tree.visits[node] == expected["visit_count"], tag
        assert tree.q(node) == pytest.approx(expected["q_value"], abs=1e-6), tag
        assert tree.value[node] == pytest.approx(expected["value"], abs=1e-6), tag
        assert tree.consecutive_errors[node] == expected["consecutive_errors"], tag
        if tree.kind[node] == Kind.ANSWER:
            assert tree.answer[node] == expected["final_answer"], tag
        if tree.kind[node] != Kind.FAILED and node != ROOT_INDEX:
            assert tree.text[node] == expected["text"], tag
        assert tree.exhausted[node] or not expected["is_terminal"], tag
