"""Batches as a function of the step: no iterator state, so that a resumed run sees what an undisturbed one saw."""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Sequence

import grain
import numpy as np

from rstar_jax.trajectory import markers, steps
from rstar_jax.trajectory.tokenizer import Tokenizer

Batch = dict[str, np.ndarray]

_WINDOW = 8  # batches whose examples are sorted by length together: less padding, order within a window not random


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyExample:
    """Prompt and response as tokens; `learn` marks the tokens that are targets."""

    tokens: np.ndarray  # int32 [T]
    learn: np.ndarray  # bool [T]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceExample:
    """Two sequences of which the first is the better one, with the weight of their pair."""

    chosen: np.ndarray  # int32 [T]
    rejected: np.ndarray  # int32 [T']
    weight: float


def policy_example(tokenizer: Tokenizer, question: str, response: str) -> PolicyExample:
    """The prompt and what programs have printed are no targets: the policy does not write these."""
    parts = [(steps.prompt(question), False), *steps.pieces(response)]
    encoded = [(tokenizer.encode(text), learned) for text, learned in parts]
    encoded.append(((tokenizer.ids[markers.END_OF_TEXT],), True))
    return PolicyExample(
        tokens=np.concatenate([np.array(ids, np.int32) for ids, _ in encoded]),
        learn=np.concatenate([np.full(len(ids), learned) for ids, learned in encoded]),
    )


def preference_example(
    tokenizer: Tokenizer, prefix: str, chosen: str, rejected: str, weight: float
) -> PreferenceExample:
    """`prefix` is prompt and shared path; `chosen` and `rejected` are what follows it."""
    shared = tokenizer.encode(prefix)
    return PreferenceExample(
        chosen=np.array(shared + tokenizer.encode(chosen), np.int32),
        rejected=np.array(shared + tokenizer.encode(rejected), np.int32),
        weight=weight,
    )


def order(sources: Sequence[Sequence], weights: Sequence[float], length: Callable, batch: int, seed: int):
    """The examples of each step: step -> list of `batch` examples.

    sources are mixed in proportion to `weights`, each shuffled anew an epoch. The examples of a window of steps are
    sorted by `length` and dealt out in a random order of batches.
    """
    sources = [(source, weight) for source, weight in zip(sources, weights, strict=True) if len(source) and weight > 0]
    if not sources:
        raise ValueError("no training examples: expected at least one")
    parts = [grain.MapDataset.source(source).seed(seed + i).shuffle().repeat() for i, (source, _) in enumerate(sources)]
    mixed = grain.MapDataset.mix(parts, [weight for _, weight in sources]) if len(parts) > 1 else parts[0]

    @functools.lru_cache(maxsize=1)  # all steps of a window ask for it
    def dealt(window: int) -> list[list]:
        start = window * _WINDOW * batch
        examples = sorted((mixed[start + i] for i in range(_WINDOW * batch)), key=length)
        places = np.random.default_rng((seed, window)).permutation(_WINDOW)
        return [examples[place * batch : (place + 1) * batch] for place in places]

    def at(step: int) -> list:
        window, place = divmod(step, _WINDOW)
        return dealt(window)[place]

    return at


def pad(sequences: Sequence[np.ndarray], buckets: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """tokens int32 [B, T] and valid bool [B, T], T the first bucket that holds the longest sequence."""
    longest = max(len(sequence) for sequence in sequences)
    length = buckets[bisect.bisect_left(buckets, longest)]
    tokens = np.zeros((len(sequences), length), np.int32)
    valid = np.zeros((len(sequences), length), bool)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
        valid[row, : len(sequence)] = True
    return tokens, valid


def policy_batch(examples: Sequence[PolicyExample], buckets: Sequence[int]) -> Batch:
    """See `losses.policy_loss`."""
    tokens, valid = pad([example.tokens for example in examples], buckets)
    learn, _ = pad([example.learn for example in examples], [tokens.shape[1]])
    return {"tokens": tokens, "valid": valid, "learn": learn.astype(bool)}


def preference_batch(examples: Sequence[PreferenceExample], buckets: Sequence[int]) -> Batch:
    """See `losses.preference_loss`."""
    sequences = [example.chosen for example in examples] + [example.rejected for example in examples]
    tokens, valid = pad(sequences, buckets)
    last = np.array([len(sequence) - 1 for sequence in sequences], np.int32)
    return {
        "tokens": tokens,
        "valid": valid,
        "last": last,
        "weight": np.array([example.weight for example in examples], np.float32),
    }
