"""What others say or have saved: markers in questions and outputs, tokenizers of other makes, their settings."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from rstar_jax.training import batches
from rstar_jax.trajectory import markers, steps
from rstar_jax.trajectory import tokenizer as ours

TOKENIZER = ours.Tokenizer.train(["a = 1 + 2\nprint(a)\n3 x y z"], 400)
_SAID = [*markers.SPECIAL_TOKENS, "<|im_end|>", "</s>", "\\boxed{42}", "3", "\n", "x"]
SAID = st.lists(st.sampled_from(_SAID)).map("".join)


@given(SAID)
def test_nothing_that_is_said_is_a_marker(said):
    for make in (steps.prompt, lambda said: steps.with_output("", said)):
        assert sum(token in TOKENIZER.ids.values() for token in TOKENIZER.encode(make(said))) == 2
    assert steps.quoted(steps.quoted(said)) == steps.quoted(said)
    assert not any(marker in steps.quoted(said) for marker in (*markers.SPECIAL_TOKENS, "<|im_end|>", "</s>"))


@given(st.lists(SAID, min_size=1, max_size=3))
def test_what_programs_print_is_never_learned_and_all_else_is(outputs):
    written = [f"{markers.CODE}\nprint({i})\n{markers.END_OF_CODE}" for i in range(len(outputs))]
    answer = steps.boxed("7")
    response = "".join(steps.with_output(own, said) for own, said in zip(written, outputs, strict=True)) + answer
    example = batches.policy_example(TOKENIZER, "q", response)
    learned = TOKENIZER.decode(example.tokens[example.learn].tolist())
    assert learned == "".join(written) + answer + markers.END_OF_TEXT
    whole = TOKENIZER.encode(steps.prompt("q")) + TOKENIZER.encode(response) + (TOKENIZER.ids[markers.END_OF_TEXT],)
    assert np.array_equal(example.tokens, whole)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5} so we write \boxed{", "5"),
        (r"\boxed{\left\{ x : x>0 \right.}", r"\left\{ x : x>0 \right."),
        (r"\boxed{1} \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\}", None),
        ("no box", None),
    ],
)
def test_the_last_box_whose_braces_match(text, answer):
    assert steps.boxed_answer(text) == answer


def saved(folder, backend, **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str())
    for name, fields in files.items():
        (folder / f"{name}.json").write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return ours.Tokenizer.load(folder).with_markers()


def sentence_piece(metaspace: bool) -> Tokenizer:
    """On the scheme of Llama 2 and Phi-3: a blank is put before every text, and taken off what is decoded."""
    letters = {letter: i for i, letter in enumerate(["<unk>", "<s>", "</s>", *"▁abcdefghijklmnopqrstuvwxyz=123\n()+"])}
    backend = Tokenizer(models.BPE(letters, [], unk_token="<unk>", byte_fallback=False))
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
        backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken("</s>", normalized=False)])
    return backend


@pytest.mark.parametrize("metaspace", [True, False])
@given(st.text("abc =1()\n", max_size=20), st.text("abc =1", max_size=9))
def test_texts_come_back_from_a_tokenizer_with_a_dummy_prefix(tmp_path_factory, metaspace, first, second):
    tokenizer = saved(tmp_path_factory.mktemp("t"), sentence_piece(metaspace))
    text = f"{first}{markers.CODE}{second}{markers.END_OF_STEP}"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    parts = (first, f"{markers.CODE}{second}{markers.END_OF_STEP}")
    assert sum((tokenizer.encode(part) for part in parts), ()) == tokenizer.encode(text)


def test_truncation_and_padding_of_others_are_off(tmp_path):
    backend = Tokenizer.from_str(TOKENIZER._backend.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    tokenizer = saved(tmp_path, backend)
    assert tokenizer.encode("a = 1 + 2\nprint(a)") == TOKENIZER.encode("a = 1 + 2\nprint(a)")


def test_markers_get_ids_that_nobody_has(tmp_path):
    """A vocabulary with unused ids, and one whose own tokens stand far behind."""
    letters = {letter: i for i, letter in enumerate("abc")} | {"x": 17, "y": 20}
    backend = Tokenizer(models.BPE(letters, []))
    tokenizer = saved(tmp_path, backend)
    new = [tokenizer.ids[marker] for marker in markers.SPECIAL_TOKENS]
    assert len(set(new)) == len(new) and min(new) > 20 and len(tokenizer) == max(new) + 1
    assert [tokenizer.encode(letter) for letter in "abxy"] == [(0,), (1,), (17,), (20,)]
    tokenizer.save(tmp_path / "again")
    again = ours.Tokenizer.load(tmp_path / "again")
    assert again.ids == tokenizer.ids and len(again) == len(tokenizer)


def test_ends_of_text_are_those_of_the_generation_configuration(tmp_path):
    backend = sentence_piece(True)
    end, other = backend.token_to_id("</s>"), backend.token_to_id("a")
    tokenizer = saved(tmp_path, backend, config={"eos_token_id": 1}, generation_config={"eos_token_id": [end, other]})
    assert {end, other, tokenizer.ids[markers.END_OF_TEXT]} == set(tokenizer.ends_of_text)
    tokenizer.save(tmp_path / "again")
    assert set(ours.Tokenizer.load(tmp_path / "again").ends_of_text) == set(tokenizer.ends_of_text)


@pytest.mark.parametrize(
    ("name", "content"), [("tokenizer", '{"model": '), ("tokenizer", "[1]"), ("tokenizer_config", "[]")]
)
def test_a_file_that_is_cut_off_is_named(tmp_path, name, content):
    backend = sentence_piece(True)
    with pytest.raises(ValueError, match=f"{name}.json: expected"):
        saved(tmp_path, backend, **{name: content})
