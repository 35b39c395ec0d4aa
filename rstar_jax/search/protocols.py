"""What search asks of the world: four protocols, so that a scripted policy or another engine can stand behind them."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from rstar_jax.verifier.protocol import Outcome, Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefix:
    """The path from a tree's root to a node: what the policy continues and the PPM judges.

    key: (problem key, node index, ...): keys every random draw made under this node, so that a draw does not depend
        on what else is in the batch.
    text: prompt and path. tokens: the same as token ids.
    """

    key: tuple[int, ...]
    text: str
    tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One sampled candidate step. `text` ends with the marker it stopped on, if it stopped on one.

    stop: the marker; "" if the model ended the text, "length" if the step ran out of room.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    stop: str


class StepSampler(Protocol):
    """The policy as search sees it."""

    def expand(self, prefixes: Sequence[Prefix], n: int, *, stops: Sequence[str]) -> list[list[Step]]:
        """Samples `n` candidate steps under each prefix."""
        ...

    def submit(self, prefix: Prefix, n: int, *, stops: Sequence[str]) -> Future[list[Step]]:
        """Asks for `n` candidate steps under one prefix, without waiting for them. A future may be cancelled."""
        ...

    def advance(self) -> None:
        """Goes on for a while with all that was submitted; each call brings some future nearer to its result."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of text that is appended to a path: the prompt, the output of code."""
        ...


class StepScorer(Protocol):
    """The process preference model as search sees it."""

    def score(self, prefixes: Sequence[Prefix], candidates: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """One value in [-1, 1] for each candidate (token ids, appended output included) of each prefix."""
        ...


class Verifier(Protocol):
    """The code runner as search sees it."""

    def submit(self, request: Request) -> Future[list[Outcome]]:
        """Starts one request, `prefix` and k `candidates`; the future gives one Outcome per candidate."""
        ...


class Grader(Protocol):
    """Who decides whether an answer is right, and which answers are equal. A test-time search has none.

    A pair is a gold answer, or several of which any is right, and an answer; None: neither right nor wrong.
    """

    def submit(self, pair: tuple[str | tuple[str, ...], str]) -> Future[bool | None]:
        """Starts to grade one pair."""
        ...

    def grade(self, pairs: Sequence[tuple[str | tuple[str, ...], str]]) -> list[bool | None]:
        """One decision for each pair."""
        ...
