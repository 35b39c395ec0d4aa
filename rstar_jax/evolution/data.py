"""From training data to batches."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from etils import epath

from rstar_jax.evolution import progress
from rstar_jax.files import rows
from rstar_jax.training import TrainingConfig, batches
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

Example = TypeVar("Example")
BatchAt = Callable[[int], batches.Batch]


def read_rows(folder: epath.PathLike) -> list[dict]:
    """The rows of a round's data set, in the order of problems."""
    with rows.Rows(folder) as found:
        return sorted(found, key=lambda row: row.get("problem", 0))


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
