"""How often the PPM prefers the better of two continuations."""

from collections.abc import Sequence

from rstar_jax.search import Prefix, StepScorer
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer


def pair_accuracy(
    groups: Sequence[Sequence[dict]], scorer: StepScorer, tokenizer: Tokenizer
) -> dict[str | None, tuple[float, int]]:
    """{kind of pair, or None for step pairs and trajectory pairs together: (share preferred rightly, pairs)}.

    groups: rows of preference data (question, prefix, chosen, rejected, kind). A tie counts as a half.
    """
    rows = [row for group in groups for row in group]
    prefixes, candidates = [], []
    for index, row in enumerate(rows):
        text = steps.prompt(row["question"]) + row["prefix"]
        prefixes.append(Prefix(key=(index,), text=text, tokens=tokenizer.encode(text)))
        candidates.append((tokenizer.encode(row["chosen"]), tokenizer.encode(row["rejected"])))
    scores = scorer.score(prefixes, candidates)
    right = [float(chosen > rejected) + 0.5 * float(chosen == rejected) for chosen, rejected in scores]
    kinds = {None, *(row["kind"] for row in rows)}
    accuracy = {}
    for kind in sorted(kinds, key=str):
        own = [value for value, row in zip(right, rows, strict=True) if kind in (None, row["kind"])]
        if own:
            accuracy[kind] = (sum(own) / len(own), len(own))
    return accuracy
