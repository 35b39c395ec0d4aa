"""From training data to batches."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from rstar_jax.evolution import progress
from rstar_jax.training import TrainingConfig, batches
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

_MOST_LEFT_OUT = 0.5  # the share of rows without room above which nothing is trained

Example = TypeVar("Example")
BatchAt = Callable[[int], batches.Batch]  # of each step
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind(Generic[Example]):
    """How rows become examples.

    make: an example of the rows that it is made of. parts: of a row, {text: its tokens}, whose sum is its length; rows
    of one example that have a text in common have it once. batch: of `batches`, what makes a batch of examples.
    key: what rows of one example have in common; None: each row is one.
    """

    make: Callable[[Sequence[Row]], Example]
    parts: Callable[[Row], dict[str, int]]
    batch: Callable[..., batches.Batch]
    key: Callable[[Row], str] | None = None


class Examples(Sequence[Example], Generic[Example]):
    """The examples of some sets of rows, set by set in the order of problems; each is made when it is asked for.

    Those of a list, which is in memory anyway, are made once. Rows of one problem that go together become one example,
    or several where one would be longer than the longest row of a batch.

    rows: of how many rows each is made. left_out: rows that are longer than that, of which there is no example.
    """

    def __init__(self, sets: Sequence[Sequence[Row]], kind: Kind[Example], config: TrainingConfig):
        """Every row is read once. Raises ValueError if most of them are too long."""
        self._sets, self.kind, self._made = sets, kind, {}
        found = [(number, group) for number, rows in enumerate(sets) for group in _grouped(rows, kind, config)]
        self._numbers = np.array([number for number, _ in found], np.int32)  # set of each example
        self.rows = np.array([len(group) for _, group in found], np.int64)
        self._ends = np.cumsum([0, *self.rows])
        self._rows = np.array([row for _, group in found for row in group], np.int32)
        total = sum(map(len, sets))
        self.left_out = total - len(self._rows)
        if self.left_out:
            message = (
                f"{self.left_out} of {total} training rows are longer than {config.max_length} tokens, the last of "
                f"TrainingConfig.buckets"
            )
            if self.left_out > _MOST_LEFT_OUT * total:
                raise ValueError(f"{message}; expected room for most of them")
            progress.say(f"left out: {message}")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        if index in self._made:
            return self._made[index]
        rows = self._sets[self._numbers[index]]
        own = self._rows[self._ends[index] : self._ends[index + 1]].tolist()
        example = self.kind.make([rows[row] for row in own])
        if isinstance(rows, list):
            self._made[index] = example
        return example


class Subset(Sequence[Example], Generic[Example]):
    """Some of the examples."""

    def __init__(self, examples: Examples[Example], places: Sequence[int]):
        self._examples, self._places = examples, np.array(places, np.int64)
        self.kind, self.rows = examples.kind, examples.rows[self._places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        return self._examples[int(self._places[index])]


def _grouped(rows: Sequence[Row], kind: Kind, config: TrainingConfig) -> list[list[int]]:
    """The places of the rows of each example that fits, in the order of problems."""
    problems: list[int] = []
    groups: list[list[int]] = []
    growing: dict[bytes, tuple[dict[bytes, int], list[int]]] = {}  # of a key, the parts and the rows
    for place, row in enumerate(rows):
        problem = row.get("problem", 0)
        parts = {_digest(text): length for text, length in kind.parts(row).items()}
        if sum(parts.values()) > config.max_length:
            continue
        key = _digest(f"{problem} {place if kind.key is None else kind.key(row)}")
        known, group = growing.get(key, ({}, []))
        if not group or sum((known | parts).values()) > config.max_length:
            known, group = {}, []
            groups.append(group)
            problems.append(problem)
        known.update(parts)
        group.append(place)
        if kind.key is not None:
            growing[key] = known, group
    return [groups[i] for i in np.argsort(problems, kind="stable")]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def policy_examples(
    sets: Sequence[Sequence[Row]], tokenizer: Tokenizer, config: TrainingConfig, *, counted: bool = False
) -> Examples[batches.PolicyExample]:
    """Examples of {"question", "response"} rows; see `Examples`.

    counted: rows say their lengths themselves, in "tokens", as data sets of a run do.
    """

    def make(rows: Sequence[Row]) -> batches.PolicyExample:
        (row,) = rows
        return batches.policy_example(tokenizer, row["question"], row["response"])

    def parts(row: Row) -> dict[str, int]:
        return {"": row["tokens"] if counted else len(make([row]))}

    return Examples(sets, Kind(make, parts, batches.policy_batch), config)


def preference_examples(
    sets: Sequence[Sequence[Row]], tokenizer: Tokenizer, config: TrainingConfig, *, counted: bool = False
) -> Examples[batches.PreferenceExample]:
    """Examples of {"question", "prefix", "chosen", "rejected"} rows, of weight 1 if they have none; see `Examples`.

    The pairs of a node are one example: the path to it is read once for all that was tried behind it.
    counted: rows say the lengths of their texts, in "prefix_tokens", "chosen_tokens" and "rejected_tokens".
    """
    length = functools.lru_cache(1 << 16)(lambda text: len(tokenizer.encode(text)))

    def prefix(row: Row) -> str:
        return steps.prompt(row["question"]) + row["prefix"]

    def parts(row: Row) -> dict[str, int]:
        if counted:
            own = {name: row[f"{name}_tokens"] for name in ("prefix", "chosen", "rejected")}
        else:
            own = {"prefix": length(prefix(row)), "chosen": length(row["chosen"]), "rejected": length(row["rejected"])}
        return {f"{name == 'prefix'} {row[name]}": tokens for name, tokens in own.items()}

    def make(rows: Sequence[Row]) -> batches.PreferenceExample:
        pairs = [(row["chosen"], row["rejected"], row.get("weight", 1.0)) for row in rows]
        return batches.preference_example(tokenizer, prefix(rows[0]), pairs)

    def key(row: Row) -> str:
        return f"{row['question']}\0{row['prefix']}"

    return Examples(sets, Kind(make, parts, batches.preference_batch, key), config)


def value_examples(
    sets: Sequence[Sequence[Row]], tokenizer: Tokenizer, config: TrainingConfig
) -> Examples[batches.ValueExample]:
    """Examples of {"question", "steps": [{"text", "value"}, ...]} rows; see `Examples`."""

    def make(rows: Sequence[Row]) -> batches.ValueExample:
        (row,) = rows
        worth = [(step["text"], step["value"]) for step in row["steps"]]
        return batches.value_example(tokenizer, steps.prompt(row["question"]), worth)

    return Examples(sets, Kind(make, lambda row: {"": len(make([row]))}, batches.value_batch), config)


def batches_of(sources: Sequence[Examples | Subset], weights: Sequence[float], config: TrainingConfig) -> BatchAt:
    """The batch of each step: sources of one kind, mixed by weight; of `config.batch` rows, on average."""
    at = batches.order(sources, weights, _examples_a_batch(sources, config), config.seed)
    kind = sources[0].kind

    def batch_at(step: int) -> batches.Batch:
        batch = kind.batch(at(step), config.buckets, config.packed)
        if config.lora is not None and config.lora.dropout:
            rng = np.random.default_rng((config.seed, step))
            batch["noise"] = rng.integers(0, 1 << 32, len(batch["tokens"]), np.uint32)
        return batch

    return batch_at


def each_once(examples: Examples | Subset, config: TrainingConfig) -> list[batches.Batch]:
    """Batches of about the same size in which each example is once."""
    size = _examples_a_batch([examples], config)
    parts = [range(start, min(start + size, len(examples))) for start in range(0, len(examples), size)]
    return [examples.kind.batch([examples[i] for i in own], config.buckets, config.packed) for own in parts]


def _examples_a_batch(sources: Sequence[Examples | Subset], config: TrainingConfig) -> int:
    rows = sum(int(own.rows.sum()) for own in sources)
    return max(round(config.batch * sum(map(len, sources)) / max(rows, 1)), 1)
