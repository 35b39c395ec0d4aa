"""From trees to training data, and from training data to batches."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from rstar_jax.evolution import progress
from rstar_jax.files import rows
from rstar_jax.search import (
    PairConfig,
    PublishedSelection,
    Tree,
    correct_trajectories,
    preference_pairs,
    published_selection,
)
from rstar_jax.training import TrainingConfig, batches
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

POLICY_FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "response": tfds.features.Text(),
}
PREFERENCE_FEATURES = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "prefix": tfds.features.Text(),
    "chosen": tfds.features.Text(),
    "rejected": tfds.features.Text(),
    "kind": tfds.features.Text(),
    "weight": np.float32,
}

Example = TypeVar("Example")
BatchAt = Callable[[int], batches.Batch]


def policy_rows(trees: Sequence[Tree], trajectories: int, selection: PairConfig | PublishedSelection) -> list[dict]:
    """The correct trajectories of each problem that the policy learns from (section 3.1: the top two by mean Q)."""
    if isinstance(selection, PublishedSelection):
        found = published_selection.correct_trajectories(trees, trajectories)
    else:
        found = [(i, leaf) for i, tree in enumerate(trees) for leaf in correct_trajectories(tree, trajectories)]
    return [
        {
            "id": f"{trees[i].problem.id}/{leaf}",
            "question": trees[i].problem.question,
            "response": trees[i].response_text(leaf),
        }
        for i, leaf in found
    ]


def preference_rows(trees: Iterable[Tree], selection: PairConfig | PublishedSelection) -> list[dict]:
    """The preference pairs of each tree that the PPM learns from (section 3.3)."""
    published = isinstance(selection, PublishedSelection)
    pairs_of = published_selection.preference_pairs if published else preference_pairs
    return [
        {
            "id": f"{tree.problem.id}/{index}",
            "question": tree.problem.question,
            "prefix": pair.prefix,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "kind": pair.kind,
            "weight": np.float32(pair.weight),
        }
        for tree in trees
        for index, pair in enumerate(pairs_of(tree, selection))
    ]


def write_rows(folder: epath.PathLike, found: Sequence[dict], features: dict) -> None:
    """Writes a round's data set; one that was there counts no more from the first moment on."""
    rows.write_shard(folder, 0, 1, found, features)
    rows.finish(folder, features, {"train": 1})


def read_rows(folder: epath.PathLike) -> list[dict]:
    """The rows of a round's data set, by id."""
    with rows.Rows(folder) as found:
        return sorted(found, key=lambda row: row["id"])


def policy_examples(rows: Sequence[dict], tokenizer: Tokenizer, config: TrainingConfig) -> list[batches.PolicyExample]:
    """Tokenised rows; those longer than the longest bucket are left out, and counted."""
    examples = [batches.policy_example(tokenizer, row["question"], row["response"]) for row in rows]
    return _fitting(examples, lambda example: len(example.tokens), config)


def preference_examples(
    rows: Sequence[dict], tokenizer: Tokenizer, config: TrainingConfig
) -> list[batches.PreferenceExample]:
    """Tokenised pairs; those with a side longer than the longest bucket are left out, and counted."""
    examples = [
        batches.preference_example(
            tokenizer, steps.prompt(row["question"]) + row["prefix"], row["chosen"], row["rejected"], row["weight"]
        )
        for row in rows
    ]
    return _fitting(examples, lambda example: max(len(example.chosen), len(example.rejected)), config)


def _fitting(examples: list[Example], length: Callable[[Example], int], config: TrainingConfig) -> list[Example]:
    """The examples that a batch has room for; says how many have none."""
    fitting = [example for example in examples if length(example) <= config.max_length]
    if len(fitting) < len(examples):
        progress.say(
            f"{len(examples) - len(fitting)} of {len(examples)} training examples are left out: "
            f"longer than {config.max_length} tokens, the last of TrainingConfig.buckets"
        )
    return fitting


def policy_batches(
    sources: Sequence[Sequence[batches.PolicyExample]], weights: Sequence[float], config: TrainingConfig
) -> BatchAt:
    """The policy's batch of each step: sources mixed by weight."""
    at = batches.order(sources, weights, lambda example: len(example.tokens), config.batch, config.seed)
    return lambda step: batches.policy_batch(at(step), config.buckets)


def preference_batches(examples: Sequence[batches.PreferenceExample], config: TrainingConfig) -> BatchAt:
    """The PPM's batch of each step."""
    at = batches.order([examples], [1.0], lambda example: len(example.chosen), config.batch, config.seed)
    return lambda step: batches.preference_batch(at(step), config.buckets)
