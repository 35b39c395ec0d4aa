"""The text language: markers are tokens, pieces concatenate, code and answers are found."""

import pytest

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
