"""Batches as a function of the step: no iterator state, so that a resumed run sees what an undisturbed one saw.

A row of a batch holds one example or, packed, several: "segments" tells them apart, "positions" begin anew with each.
"""

import bisect
import dataclasses
import functools
from collections.abc import Sequence

import grain
import numpy as np

from rstar_jax.training.packing import pack
from rstar_jax.trajectory import markers, steps
from rstar_jax.trajectory.tokenizer import Tokenizer

Batch = dict[str, np.ndarray]

_WINDOW = 8  # batches whose examples are sorted by length together: less padding, order within a window not random
_FEWEST = 16  # places at which scores are read that a row has at least, so that few programs are compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyExample:
    """Prompt and response as tokens; `learn` marks the tokens that are targets."""

    tokens: np.ndarray  # int32 [T]
    learn: np.ndarray  # bool [T]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceExample:
    """A node: the path to it, what was tried behind it, and pairs of these of which the first is the better one."""

    prefix: np.ndarray  # int32 [T]
    candidates: tuple[np.ndarray, ...]  # int32 [T'] each
    pairs: tuple[tuple[int, int, float], ...]  # places of chosen and rejected, weight

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.candidates))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueExample:
    """A sequence, where in it steps end, and what they are worth."""

    tokens: np.ndarray  # int32 [T]
    ends: tuple[int, ...]  # places of the last tokens
    values: tuple[float, ...]  # in -1 to 1

    def __len__(self) -> int:
        return len(self.tokens)


Example = PolicyExample | PreferenceExample | ValueExample


def policy_example(tokenizer: Tokenizer, question: str, response: str) -> PolicyExample:
    """The prompt and what programs have printed are no targets: the policy does not write these."""
    parts = [(steps.prompt(question), False), *steps.pieces(response)]
    encoded = [(tokenizer.encode(text), learned) for text, learned in parts]
    encoded.append(((tokenizer.ids[markers.END_OF_TEXT],), True))
    return PolicyExample(
        tokens=np.concatenate([np.array(ids, np.int32) for ids, _ in encoded]),
        learn=np.concatenate([np.full(len(ids), learned) for ids, learned in encoded]),
    )


def preference_example(tokenizer: Tokenizer, prefix: str, pairs: Sequence[tuple[str, str, float]]) -> PreferenceExample:
    """`prefix` is prompt and shared path. pairs: (chosen, rejected, weight), the texts that follow it."""
    places: dict[str, int] = {}
    found = tuple(
        (places.setdefault(chosen, len(places)), places.setdefault(rejected, len(places)), weight)
        for chosen, rejected, weight in pairs
    )
    return PreferenceExample(
        prefix=np.array(tokenizer.encode(prefix), np.int32),
        candidates=tuple(np.array(tokenizer.encode(text), np.int32) for text in places),
        pairs=found,
    )


def value_example(tokenizer: Tokenizer, prefix: str, worth: Sequence[tuple[str, float]]) -> ValueExample:
    """`prefix` is the prompt; worth: (text of a step, its value), one step behind the other."""
    tokens, ends = list(tokenizer.encode(prefix)), []
    for text, _ in worth:
        tokens += tokenizer.encode(text)
        ends.append(len(tokens) - 1)
    return ValueExample(
        tokens=np.array(tokens, np.int32), ends=tuple(ends), values=tuple(float(value) for _, value in worth)
    )


def order(sources: Sequence[Sequence], weights: Sequence[float], batch: int, seed: int, window: int = _WINDOW):
    """The examples of each step: step -> list of `batch` examples.

    sources are mixed in proportion to `weights`, each shuffled anew an epoch. The examples of a window of steps are
    sorted by length and dealt out in a random order of batches.
    """
    sources = [(source, weight) for source, weight in zip(sources, weights, strict=True) if len(source) and weight > 0]
    if not sources:
        raise ValueError("no training examples: expected at least one")
    parts = [grain.MapDataset.source(source).seed(seed + i).shuffle().repeat() for i, (source, _) in enumerate(sources)]
    mixed = grain.MapDataset.mix(parts, [weight for _, weight in sources]) if len(parts) > 1 else parts[0]

    @functools.lru_cache(maxsize=1)  # all steps of a window ask for it
    def dealt(number: int) -> list[list]:
        start = number * window * batch
        examples = sorted((mixed[start + i] for i in range(window * batch)), key=len)
        places = np.random.default_rng((seed, number)).permutation(window)
        return [examples[place * batch : (place + 1) * batch] for place in places]

    def at(step: int) -> list:
        number, place = divmod(step, window)
        return dealt(number)[place]

    return at


def in_rows(examples: Sequence[Example], buckets: Sequence[int], packed: bool = False) -> tuple[list[list], int]:
    """(the examples of each row, the length of rows): one a row, or as many as there is room for."""
    if packed:
        return [[examples[i] for i in row] for row in pack([len(own) for own in examples], buckets[0])], buckets[0]
    longest = max(map(len, examples))
    return [[own] for own in examples], buckets[bisect.bisect_left(buckets, longest)]


def policy_batch(examples: Sequence[PolicyExample], buckets: Sequence[int], packed: bool = False) -> Batch:
    """See `losses.policy_loss`."""
    rows, length = in_rows(examples, buckets, packed)
    batch = _empty(len(rows), length) | {"learn": np.zeros((len(rows), length), bool)}
    for row, segment, start, own in _placed(rows):
        _write(batch, row, start, own.tokens, segment)
        batch["learn"][row, start : start + len(own)] = own.learn
    return batch


def preference_batch(examples: Sequence[PreferenceExample], buckets: Sequence[int], packed: bool = False) -> Batch:
    """See `losses.preference_loss`."""
    rows, length = in_rows(examples, buckets, packed)
    batch = _empty(len(rows), length) | {"branches": np.zeros((len(rows), length), np.int32)}
    found: list[list[tuple[int, int, float]]] = [[] for _ in rows]
    for row, segment, start, own in _placed(rows):
        _write(batch, row, start, own.prefix, segment)
        at, ends = start + len(own.prefix), []
        for branch, candidate in enumerate(own.candidates, start=1):
            _write(batch, row, at, candidate, segment, len(own.prefix))
            batch["branches"][row, at : at + len(candidate)] = branch
            at += len(candidate)
            ends.append(at - 1)
        found[row] += [(ends[chosen], ends[rejected], weight) for chosen, rejected, weight in own.pairs]
    chosen, rejected, weight = _columns(found, 3)
    return batch | {"chosen": chosen.astype(np.int32), "rejected": rejected.astype(np.int32), "weight": weight}


def value_batch(examples: Sequence[ValueExample], buckets: Sequence[int], packed: bool = False) -> Batch:
    """See `losses.value_loss`."""
    rows, length = in_rows(examples, buckets, packed)
    batch, found = _empty(len(rows), length), [[] for _ in rows]
    for row, segment, start, own in _placed(rows):
        _write(batch, row, start, own.tokens, segment)
        found[row] += [(start + end, value, 1.0) for end, value in zip(own.ends, own.values, strict=True)]
    at, value, weight = _columns(found, 3)
    return batch | {"at": at.astype(np.int32), "value": value, "weight": weight}


def with_rows(batch: Batch, multiple: int) -> Batch:
    """`batch` with empty rows, of which nothing is learned, up to a multiple of so many."""
    rows = len(batch["tokens"])
    more = -rows % multiple
    if not more:
        return batch
    return {name: np.pad(value, ((0, more),) + ((0, 0),) * (value.ndim - 1)) for name, value in batch.items()}


def _empty(rows: int, length: int) -> Batch:
    return {name: np.zeros((rows, length), np.int32) for name in ("tokens", "segments", "positions")}


def _placed(rows: Sequence[Sequence[Example]]):
    """(row, segment, place of its first token, example) of each example."""
    for row, examples in enumerate(rows):
        start = 0
        for segment, own in enumerate(examples, start=1):
            yield row, segment, start, own
            start += len(own)


def _write(batch: Batch, row: int, start: int, tokens: np.ndarray, segment: int, position: int = 0) -> None:
    own = slice(start, start + len(tokens))
    batch["tokens"][row, own] = tokens
    batch["segments"][row, own] = segment
    batch["positions"][row, own] = np.arange(position, position + len(tokens))


def _columns(rows: Sequence[Sequence[tuple]], count: int) -> list[np.ndarray]:
    """Lists of tuples of different lengths as `count` arrays fp32 [rows, P], P a power of two, zeros where none is."""
    width = 1 << (max(_FEWEST, *map(len, rows)) - 1).bit_length()
    columns = np.zeros((count, len(rows), width), np.float32)
    for row, own in enumerate(rows):
        if own:
            columns[:, row, : len(own)] = np.array(own, np.float32).T
    return list(columns)
