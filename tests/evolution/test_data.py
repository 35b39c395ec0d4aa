"""From rows to examples: what no batch has room for is left out and counted."""

import pytest

from rstar_jax.evolution import data
from rstar_jax.training import TrainingConfig
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train([steps.prompt("1 + 2")], 300)
CONFIG = TrainingConfig(steps=1, batch=1, learning_rate=1.0, buckets=(32, 64))
LONG = "1 + 2 = 3; " * 40


def policy_examples(texts):
    return data.policy_examples([{"question": "1", "response": text} for text in texts], TOKENIZER, CONFIG)


def preference_examples(texts):
    rows = [{"question": "1", "prefix": "", "chosen": "2", "rejected": text, "weight": 1.0} for text in texts]
    return data.preference_examples(rows, TOKENIZER, CONFIG)


@pytest.mark.parametrize("examples", [policy_examples, preference_examples])
@pytest.mark.parametrize(("texts", "kept"), [(["1", LONG, "2", LONG], 2), (["1", "2"], 2), ([LONG], 0), ([], 0)])
def test_what_is_too_long_is_left_out_and_counted(examples, texts, kept, capsys):
    assert len(examples(texts)) == kept
    said = " ".join(capsys.readouterr().err.split())
    left_out = f"{len(texts) - kept} of {len(texts)} training examples are left out: longer than 64 tokens"
    assert (left_out in said) if kept < len(texts) else not said
