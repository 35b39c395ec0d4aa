"""From rows to examples: tokenised when asked for; what no batch has room for is left out and counted."""

import numpy as np
import pytest

from rstar_jax.evolution import data
from rstar_jax.evolution.select import POLICY_FEATURES
from rstar_jax.files import rows
from rstar_jax.training import TrainingConfig
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train([steps.prompt("1 + 2")], 300)
CONFIG = TrainingConfig(steps=1, batch=1, learning_rate=1.0, buckets=(32, 64))
LONG = "1 + 2 = 3; " * 40


def policy_examples(texts):
    return data.policy_examples([[{"question": "1", "response": text} for text in texts]], TOKENIZER, CONFIG)


def preference_examples(texts):
    pairs = [{"question": "1", "prefix": "", "chosen": "2", "rejected": text} for text in texts]
    return data.preference_examples([pairs], TOKENIZER, CONFIG)


@pytest.mark.parametrize("examples", [policy_examples, preference_examples])
@pytest.mark.parametrize(("texts", "kept"), [(["1", LONG, "2", LONG], 2), (["1", "2"], 2), ([], 0)])
def test_what_is_too_long_is_left_out_and_counted(examples, texts, kept, capsys):
    found = examples(texts)
    assert len(found) == kept and found.left_out == len(texts) - kept
    said = " ".join(capsys.readouterr().err.split())
    left_out = f"left out: {len(texts) - kept} of {len(texts)} training examples are longer than 64 tokens"
    assert (left_out in said) if kept < len(texts) else not said


@pytest.mark.parametrize("examples", [policy_examples, preference_examples])
@pytest.mark.parametrize("texts", [[LONG], ["1", LONG, LONG]])
def test_a_training_that_would_lose_most_of_its_examples_does_not_begin(examples, texts):
    with pytest.raises(ValueError, match=r"of [13] training examples are longer than 64 .*TrainingConfig\.buckets"):
        examples(texts)


def stored(folder, found, total=3):
    for shard in range(total):
        own = [row for row in found if row["problem"] % total == shard]
        rows.write_shard(folder, shard, total, own, POLICY_FEATURES)
    rows.finish(folder, POLICY_FEATURES, {"train": total})
    return rows.Rows(folder)


def row(problem, response, tokens=None):
    question = str(problem)
    counted = len(data.batches.policy_example(TOKENIZER, question, response).tokens) if tokens is None else tokens
    return {"id": "", "problem": problem, "question": question, "response": response, "tokens": np.int32(counted)}


def texts_of(examples):
    return [TOKENIZER.decode(example.tokens[example.learn].tolist()) for example in examples]


def test_examples_of_data_sets_come_set_by_set_in_the_order_of_problems(tmp_path):
    first = [row(own, f"{own} a") for own in range(7)] + [row(own, f"{own} b") for own in (5, 2)]
    second = [row(own, f"{own} c") for own in (4, 0)]
    with stored(tmp_path / "1", first) as one, stored(tmp_path / "2", second) as two:
        found = texts_of(data.policy_examples([one, two], TOKENIZER, CONFIG, counted=True))
    expected = ["0 a", "1 a", "2 a", "2 b", "3 a", "4 a", "5 a", "5 b", "6 a", "0 c", "4 c"]
    assert [text.split("<")[0].strip() for text in found] == expected


def test_a_row_is_tokenised_when_its_example_is_asked_for(tmp_path, monkeypatch):
    with stored(tmp_path, [row(problem, "1") for problem in range(20)] + [row(20, "1", tokens=65)]) as found:
        made = []
        whole = data.batches.policy_example
        monkeypatch.setattr(
            data.batches, "policy_example", lambda *arguments: made.append(arguments) or whole(*arguments)
        )
        examples = data.policy_examples([found], TOKENIZER, CONFIG, counted=True)
        assert len(examples) == 20 and not made
        batch_at = data.policy_batches([examples], [1.0], CONFIG)
        for step in range(8):  # one window
            batch_at(step)
        assert len(made) == 8
        # Of rows that another tokenizer may have counted, each is counted anew.
        assert len(data.policy_examples([found], TOKENIZER, CONFIG)) == 21


def test_rows_in_memory_are_tokenised_once(monkeypatch):
    made = []
    whole = data.batches.policy_example
    monkeypatch.setattr(data.batches, "policy_example", lambda *arguments: made.append(arguments) or whole(*arguments))
    batch_at = data.policy_batches([policy_examples(["1", "2", "3"])], [1.0], CONFIG)
    for step in range(20):
        batch_at(step)
    assert len(made) == 3
