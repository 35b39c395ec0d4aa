"""From training data to batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from rstar_jax.evolution import progress
from rstar_jax.training import TrainingConfig, batches
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

_MOST_LEFT_OUT = 0.5  # the share of examples without room above which nothing is trained

Example = TypeVar("Example")
BatchAt = Callable[[int], batches.Batch]
Row = dict[str, Any]


class Examples(Sequence[Example], Generic[Example]):
    """The examples of some sets of rows, set by set in the order of problems; each is tokenised when it is asked for.

    Those of a list, which is in memory anyway, are tokenised once.

    left_out: how many are longer than the longest bucket, and not among them.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Row]],
        make: Callable[[Row], Example],
        length: Callable[[Example], int],
        config: TrainingConfig,
        counted: bool,
    ):
        """make: the example of a row; length: its tokens. counted: whether rows say these themselves, in "tokens".

        Every row is read once for that. Raises ValueError if most of them are too long.
        """
        self._made = [list(map(make, rows)) if isinstance(rows, list) else _Made(rows, make) for rows in sets]
        self._places = np.zeros((0, 2), np.int32)  # set and row of each
        for number, rows in enumerate(sets):
            if counted:
                told = [(row["problem"], row["tokens"]) for row in rows]
            else:
                told = [(row.get("problem", 0), length(own)) for row, own in zip(rows, self._made[number], strict=True)]
            found = np.array(told, np.int64).reshape(-1, 2)
            order = np.argsort(found[:, 0], kind="stable")
            order = order[found[order, 1] <= config.max_length]
            own = np.stack([np.full_like(order, number), order], axis=1).astype(np.int32)
            self._places = np.concatenate([self._places, own])
        total = sum(map(len, sets))
        self.left_out = total - len(self)
        if self.left_out:
            message = (
                f"{self.left_out} of {total} training examples are longer than {config.max_length} tokens, the last of "
                f"TrainingConfig.buckets"
            )
            if self.left_out > _MOST_LEFT_OUT * total:
                raise ValueError(f"{message}; expected room for most of them")
            progress.say(f"left out: {message}")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        number, row = self._places[index].tolist()
        return self._made[number][row]


class _Made(Sequence[Example], Generic[Example]):
    """What is made of rows, one by one, when it is asked for."""

    def __init__(self, rows: Sequence[Row], make: Callable[[Row], Example]):
        self._rows, self._make = rows, make

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return self._make(self._rows[index])

    def __iter__(self) -> Iterator[Example]:
        return map(self._make, self._rows)  # a set reads in order faster than one by one


def policy_examples(
    sets: Sequence[Sequence[Row]], tokenizer: Tokenizer, config: TrainingConfig, *, counted: bool = False
) -> Examples[batches.PolicyExample]:
    """Examples of {"question", "response"} rows; see `Examples`."""

    def make(row: Row) -> batches.PolicyExample:
        return batches.policy_example(tokenizer, row["question"], row["response"])

    return Examples(sets, make, lambda example: len(example.tokens), config, counted)


def preference_examples(
    sets: Sequence[Sequence[Row]], tokenizer: Tokenizer, config: TrainingConfig, *, counted: bool = False
) -> Examples[batches.PreferenceExample]:
    """Examples of {"question", "prefix", "chosen", "rejected"} rows, of weight 1 if they have none; see `Examples`."""

    def make(row: Row) -> batches.PreferenceExample:
        prefix = steps.prompt(row["question"]) + row["prefix"]
        return batches.preference_example(tokenizer, prefix, row["chosen"], row["rejected"], row.get("weight", 1.0))

    return Examples(sets, make, lambda example: max(len(example.chosen), len(example.rejected)), config, counted)


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
