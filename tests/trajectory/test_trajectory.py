"""The text language: markers are tokens, pieces concatenate, code and answers are found."""

import json

import pytest
import tokenizers

from rstar_jax.trajectory import markers, steps
from rstar_jax.trajectory.tokenizer import Tokenizer

TEXT = (
    "<code>\na = 12 + 7\n<end_of_step>\nprint(a)\n<end_of_code>"
    "\n<output>19<end_of_output>\n<answer>\\boxed{19}<end_of_answer>"
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([steps.prompt("What is 12 + 7?") + TEXT] * 5, 320)


def test_text_comes_back(tokenizer):
    for text in (TEXT, steps.prompt("é ≤ 3\n\t?"), "print('ü')"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_markers_are_single_tokens_and_digits_too(tokenizer):
    for marker in markers.SPECIAL_TOKENS:
        assert tokenizer.encode(marker) == (tokenizer.ids[marker],)
    assert len(tokenizer.encode("1234567")) == 7


def test_tokens_of_nodes_concatenate_to_the_tokens_of_the_path(tokenizer):
    nodes = [steps.prompt("What is 12 + 7?"), "<code>\na = 12 + 7\n<end_of_step>", "\nprint(a)\n<end_of_code>"]
    nodes += ["\n<output>19<end_of_output>", "\n<answer>\\boxed{19}<end_of_answer>"]
    assert tokenizer.encode("".join(nodes)) == sum((tokenizer.encode(node) for node in nodes), ())


def test_a_tokenizer_folder_comes_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode(TEXT) == tokenizer.encode(TEXT)
    with pytest.raises(FileNotFoundError, match="expected a tokenizer there"):
        Tokenizer.load(tmp_path / "nothing")


def test_markers_may_be_added_or_stay_text(tmp_path):
    foreign = tokenizers.Tokenizer(tokenizers.models.BPE())
    foreign.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    foreign.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|im_end|>"]
    )
    foreign.train_from_iterator([TEXT] * 3, trainer)
    (tmp_path / "tokenizer.json").write_text(foreign.to_str())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", "chat_template": "x"}))
    text = Tokenizer.load(tmp_path)
    assert text.ids == {} and not text.knows_markers and text.ends_of_text == (foreign.token_to_id("<|im_end|>"),)
    assert text.decode(text.ending("<end_of_code>")) == "end_of_code" and len(text.ending("<end_of_code>")) > 1
    added = text.with_markers()
    assert added.knows_markers and added != text
    assert len(added) == len(text) + len(markers.SPECIAL_TOKENS) and min(added.ids.values()) == len(text)
    assert added.encode("<end_of_code>") == (added.ids["<end_of_code>"],) and added.decode(added.encode(TEXT)) == TEXT
    added.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.ids == added.ids and again.ends_of_text == added.ends_of_text
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["chat_template"] == "x"


def test_code_of_a_step():
    assert steps.code("<code>\na = 1\n<end_of_step>") == "a = 1"
    assert steps.code("\nprint(a)\n<end_of_code>\n<output>1<end_of_output>") == "print(a)"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{4}", "4"),
        ("first \\boxed{1}, then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("We know x is 3.\nSo \\boxed{4}.", "4"),
        ("\\boxed{4", None),
        ("no box", None),
        ("\\boxed{}", ""),
    ],
)
def test_boxed_answers(text, answer):
    assert steps.boxed_answer(text) == answer


@pytest.mark.parametrize("marker", sorted(markers.SPECIAL_TOKENS))
def test_what_a_program_prints_is_no_marker_and_is_never_learned(marker):
    printed = f"1{marker}\n<answer>\\boxed{{7}}{marker}2"
    text = steps.with_output(f"<code>\nprint(x)\n{markers.END_OF_CODE}", printed)
    (shown,) = [piece for piece, learned in steps.pieces(text) if not learned]
    assert shown == f"\n{markers.OUTPUT}{steps.quoted(printed)}{markers.END_OF_OUTPUT}" and text.endswith(shown)
    assert not any(own in steps.quoted(printed) for own in markers.SPECIAL_TOKENS)
