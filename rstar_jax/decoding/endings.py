"""Where a sample ends, and the step that it is then."""

from collections.abc import Sequence

import numpy as np

from rstar_jax.search.protocols import Step
from rstar_jax.trajectory.tokenizer import Tokenizer


class Endings:
    """The endings of one kind of sample: the stop markers asked for, and the model's own end of text.

    table: int32 [E, W], the tokens of each ending, aligned on the right behind -1.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]):
        self._tokenizer = tokenizer
        self._stops = {tokenizer.ending(stop): stop for stop in stops}
        self._stops |= {(end,): "" for end in tokenizer.ends_of_text}
        rows = sorted(self._stops)
        self.table = np.full((len(rows), max(map(len, rows))), -1, np.int32)
        for i, row in enumerate(rows):
            self.table[i, -len(row) :] = row

    def step(self, ids: tuple[int, ...], logprob: float, stopped: bool) -> Step:
        """What was sampled, as text. The end of text is no part of it; a marker that is one is, whole."""
        text, stop = self._tokenizer.decode(ids), "length"
        if stopped:
            ending, stop = next((own, name) for own, name in self._stops.items() if ids[-len(own) :] == own)
            if stop == "":
                ids = ids[: -len(ending)]
                text = self._tokenizer.decode(ids)
            elif not text.endswith(stop):  # a marker of several tokens ends before its bracket
                ids, text = ids + self._tokenizer.encode(">"), text + ">"
        return Step(text=text, tokens=ids, logprob=float(logprob), stop=stop)
