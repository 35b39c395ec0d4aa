"""From rows to examples: tokenised when asked for; what no batch has room for is left out and counted."""

import dataclasses

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
    pairs = [{"question": str(i), "prefix": "", "chosen": "2", "rejected": text} for i, text in enumerate(texts)]
    return data.preference_examples([pairs], TOKENIZER, CONFIG)


@pytest.mark.parametrize("examples", [policy_examples, preference_examples])
@pytest.mark.parametrize(("texts", "kept"), [(["1", LONG, "2", LONG], 2), (["1", "2"], 2), ([], 0)])
def test_what_is_too_long_is_left_out_and_counted(examples, texts, kept, capsys):
    found = examples(texts)
    assert len(found) == kept and found.left_out == len(texts) - kept
    said = " ".join(capsys.readouterr().err.split())
    left_out = f"left out: {len(texts) - kept} of {len(texts)} training rows are longer than 64 tokens"
    assert (left_out in said) if kept < len(texts) else not said


@pytest.mark.parametrize("examples", [policy_examples, preference_examples])
@pytest.mark.parametrize("texts", [[LONG], ["1", LONG, LONG]])
def test_a_training_that_would_lose_most_of_its_examples_does_not_begin(examples, texts):
    with pytest.raises(ValueError, match=r"of [13] training rows are longer than 64 .*TrainingConfig\.buckets"):
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
        batch_at = data.batches_of([examples], [1.0], CONFIG)
        for step in range(8):  # one window
            batch_at(step)
        assert len(made) == 8
        # Of rows that another tokenizer may have counted, each is counted anew.
        assert len(data.policy_examples([found], TOKENIZER, CONFIG)) == 21


def test_rows_in_memory_are_made_once(monkeypatch):
    made = []
    whole = data.batches.policy_example
    monkeypatch.setattr(data.batches, "policy_example", lambda *arguments: made.append(arguments) or whole(*arguments))
    batch_at = data.batches_of([policy_examples(["1", "2", "3"])], [1.0], CONFIG)
    for step in range(20):
        batch_at(step)
    assert len(made) == 3 + 3  # for their lengths, and for the batches


PAIRS = [
    {"question": "1", "prefix": "a", "chosen": "b", "rejected": "c", "weight": 0.25},
    {"question": "1", "prefix": "a", "chosen": "b", "rejected": "d", "weight": 0.75},
    {"question": "1", "prefix": "", "chosen": "b", "rejected": "c"},
    {"question": "2", "prefix": "a", "chosen": "c", "rejected": "d"},
]


def told(example):
    """The pairs of an example as texts."""
    texts = [TOKENIZER.decode(own.tolist()) for own in example.candidates]
    return {(TOKENIZER.decode(example.prefix.tolist()), texts[a], texts[b], weight) for a, b, weight in example.pairs}


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 2, 0]])
def test_the_pairs_of_a_node_are_one_example(order):
    found = data.preference_examples([[PAIRS[i] for i in order]], TOKENIZER, CONFIG)
    assert sorted(len(example.pairs) for example in found) == [1, 1, 2]
    wanted = {
        (steps.prompt(row["question"]) + row["prefix"], row["chosen"], row["rejected"], row.get("weight", 1.0))
        for row in PAIRS
    }
    assert set().union(*map(told, found)) == wanted
    (node,) = [example for example in found if len(example.pairs) == 2]
    assert len(node.candidates) == 3 and len(node) == len(node.prefix) + 3


def test_a_node_that_is_longer_than_a_row_becomes_several_examples():
    texts = [f"{'x ' * 6}{own}" for own in range(6)]
    pairs = [{"question": "1", "prefix": "", "chosen": texts[0], "rejected": text} for text in texts[1:]]
    found = data.preference_examples([pairs], TOKENIZER, CONFIG)
    assert found.left_out == 0 and len(found) > 1
    assert all(len(example) <= CONFIG.max_length for example in found)
    assert sum(len(example.pairs) for example in found) == len(pairs)


def test_a_batch_has_its_pairs_on_average_and_held_out_ones_come_once():
    pairs = [
        {"question": str(node), "prefix": "a", "chosen": "b", "rejected": str(own)}
        for node in range(12)
        for own in range(1 + 2 * (node % 2))
    ]
    found = data.preference_examples([pairs], TOKENIZER, CONFIG)
    config = dataclasses.replace(CONFIG, batch=6, buckets=(64,), packed=True)
    assert (len(found), found.rows.sum()) == (12, 24)
    batch_at = data.batches_of([found], [1.0], config)
    assert [np.unique(batch_at(step)["weight"]).tolist() for step in range(4)] == [[0.0, 1.0]] * 4
    assert sum(int(batch_at(step)["weight"].sum()) for step in range(4)) == 24  # an epoch: three nodes a step
    once = data.each_once(data.Subset(found, [1, 3, 4, 5, 8]), config)
    assert [int(batch["weight"].sum()) for batch in once] == [7, 4]  # six pairs are about three of these nodes


def test_held_out_examples_are_not_learned_from():
    examples = policy_examples([str(own) for own in range(20)])
    one, other = data.Subset(examples, [0, 5, 7]), data.Subset(examples, [1, 2])
    assert texts_of(one) == [texts_of(examples)[place] for place in (0, 5, 7)]
    assert not set(texts_of(one)) & set(texts_of(other))
