"""From the trees of a round to its training data, shard by shard."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rstar_jax import evaluation, files
from rstar_jax.evolution import progress
from rstar_jax.evolution.annotate import trees_folder
from rstar_jax.evolution.config import Round
from rstar_jax.evolution.run import Run
from rstar_jax.evolution.run_folder import Shards, Taken
from rstar_jax.files import rows
from rstar_jax.problems import Problem
from rstar_jax.search import (
    PairConfig,
    PublishedSelection,
    Tree,
    best_trajectories,
    preference_pairs,
    published_selection,
    read_shard,
)
from rstar_jax.training import batches
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

# problem: its place in its set, by which rows are put in order again. tokens: of the whole sequence, or of a text.
POLICY_FEATURES = {
    "id": tfds.features.Text(),
    "problem": np.int64,
    "question": tfds.features.Text(),
    "response": tfds.features.Text(),
    "tokens": np.int32,
}
PREFERENCE_FEATURES = {
    "id": tfds.features.Text(),
    "problem": np.int64,
    "question": tfds.features.Text(),
    "prefix": tfds.features.Text(),
    "chosen": tfds.features.Text(),
    "rejected": tfds.features.Text(),
    "kind": tfds.features.Text(),
    "weight": np.float32,
    "prefix_tokens": np.int32,  # the prompt's among them
    "chosen_tokens": np.int32,
    "rejected_tokens": np.int32,
}


def policy_data(number: int) -> str:
    """Where a round's trajectories lie, in the run."""
    return f"round_{number}/policy_data"


def preference_data(number: int) -> str:
    """Where a round's preference pairs lie, in the run."""
    return f"round_{number}/preference_data"


def selection_folder(number: int) -> str:
    """Where the markers of selected shards lie, in the run."""
    return f"round_{number}/selection"


class Selection:
    """The selection of a round."""

    def __init__(self, run: Run, number: int):
        self._run, self._number, self._total = run, number, run.config.shards

    def shards(self) -> Shards:
        """Its work."""
        return Shards(folder=selection_folder(self._number), total=self._total, work=self._select)

    def finish(self) -> None:
        """Describes the data sets; notes what was solved, and how honestly."""
        run, number = self._run, self._number
        for folder, features in self._data_sets():
            rows.finish(run.folder.path / folder, features, {"train": self._total})
        facts = [json.loads(files.read(self._marker(shard))) for shard in range(self._total)]
        trajectories, pairs, wrong, checked = (
            sum(fact[name] for fact in facts) for name in ("trajectories", "pairs", "wrong", "checked")
        )
        solved = [
            {"level": level or None, "values": {"solved_share": float(value)}}
            for fact in facts
            for level, values in fact["solved"].items()
            for value in values
        ]
        run.note(number, evaluation.summarise(solved), "train")
        add = run.folder.add
        if checked:
            add(round=number, name="false_positive_share", value=wrong / checked, split="train", checked=checked)
        add(round=number, name="trajectories", value=trajectories, split="train")
        add(round=number, name="preference_pairs", value=pairs, split="train")
        share = sum(row["values"]["solved_share"] for row in solved) / max(len(solved), 1)
        honest = f" ({wrong / checked:.3f} by wrong programs)" if checked else ""
        progress.say(
            f"round {number}: solved {share:.3f} of {len(solved)} problems, {trajectories} trajectories{honest}, "
            f"{pairs} preference pairs"
        )

    def _select(self, taken: Taken) -> None:
        tokenizer = Tokenizer.load(self._run.folder.round(0) / "policy")
        with progress.bar(f"round {self._number}: select", self._total, "shards") as advance_to:
            for count, shard in enumerate(taken, start=1):
                self._select_shard(shard, tokenizer)
                advance_to(count, "")

    def _select_shard(self, shard: int, tokenizer: Tokenizer) -> None:
        run, settings = self._run, self._run.round(self._number)
        problems = run.problems(run.round_problems(self._number)).shard(shard)
        trees: dict[str, list[Tree]] = {problem.id: [] for problem in problems}
        for place in range(1, len(settings.passes) + 1):
            folder = run.folder.path / trees_folder(self._number, place)
            for tree in read_shard(folder, shard, self._total):
                trees[tree.problem.id].append(tree)
        chosen = {problem.id: best(trees[problem.id], settings) for problem in problems}
        found = policy_rows(problems, trees, chosen), preference_rows(problems, trees, settings.pairs)
        counts = []
        for (folder, features), own in zip(self._data_sets(), found, strict=True):
            numbered = [_finished(row, shard, self._total, tokenizer) for row in own]
            rows.write_shard(run.folder.path / folder, shard, self._total, numbered, features)
            counts.append(len(numbered))
        leaves = [(trees[problem.id][tree], leaf) for problem in problems for tree, leaf in chosen[problem.id]]
        wrong, checked = evaluation.wrong_programs(leaves, run.world.verifier)
        solved: dict[str, list[int]] = {}
        for problem in problems:
            right = any((tree.correct == 1).any() for tree in trees[problem.id])
            solved.setdefault(problem.level or "", []).append(int(right))
        facts = {"trajectories": counts[0], "pairs": counts[1], "wrong": wrong, "checked": checked, "solved": solved}
        files.publish(self._marker(shard), json.dumps(facts))

    def _marker(self, shard: int):
        return files.marker_path(
            files.shard_path(self._run.folder.path / selection_folder(self._number), shard, self._total)
        )

    def _data_sets(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (policy_data(self._number), POLICY_FEATURES),
            (preference_data(self._number), PREFERENCE_FEATURES),
        ]


def best(trees: Sequence[Tree], settings: Round) -> list[tuple[int, int]]:
    """(place of the tree, leaf) of the trajectories of one problem that the policy learns from (section 3.1)."""
    if isinstance(settings.pairs, PublishedSelection):
        return published_selection.correct_trajectories(trees, settings.trajectories)
    return best_trajectories(trees, settings.trajectories)


def policy_rows(
    problems: Sequence[Problem],
    trees: Mapping[str, Sequence[Tree]],
    chosen: Mapping[str, Sequence[tuple[int, int]]],
) -> Iterator[dict[str, Any]]:
    """The chosen trajectories of each problem; "place" is that of the problem."""
    for place, problem in enumerate(problems):
        own = (
            {
                "id": f"{problem.id}/{tree}.{leaf}",
                "problem": place,
                "question": problem.question,
                "response": trees[problem.id][tree].response_text(leaf),
            }
            for tree, leaf in chosen[problem.id]
        )
        yield from sorted(own, key=lambda row: row["id"])


def preference_rows(
    problems: Sequence[Problem], trees: Mapping[str, Sequence[Tree]], selection: PairConfig | PublishedSelection
) -> Iterator[dict[str, Any]]:
    """The preference pairs of each problem that the PPM learns from (section 3.3)."""
    published = isinstance(selection, PublishedSelection)
    pairs_of = published_selection.preference_pairs if published else preference_pairs
    for place, problem in enumerate(problems):
        pairs = itertools.chain.from_iterable(pairs_of(tree, selection) for tree in trees[problem.id])
        own = (
            {
                "id": f"{problem.id}/{index}",
                "problem": place,
                "question": problem.question,
                "prefix": pair.prefix,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "kind": pair.kind,
                "weight": np.float32(pair.weight),
            }
            for index, pair in enumerate(pairs)
        )
        yield from sorted(own, key=lambda row: row["id"])


def _finished(row: dict[str, Any], shard: int, total: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """A row with the place of its problem in the whole set, and its lengths."""
    if "response" in row:
        counts = {"tokens": len(batches.policy_example(tokenizer, row["question"], row["response"]))}
    else:
        texts = {
            "prefix": steps.prompt(row["question"]) + row["prefix"],
            "chosen": row["chosen"],
            "rejected": row["rejected"],
        }
        counts = {f"{name}_tokens": len(tokenizer.encode(text)) for name, text in texts.items()}
    return {**row, "problem": shard + total * row["problem"], **counts}
