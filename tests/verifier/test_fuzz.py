"""Whatever comes in, the protocol, the markup and the graders' readers raise nothing but what they say."""

import json
import socket
import struct

import sympy
from hypothesis import assume, given
from hypothesis import strategies as st

from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier import exact
from rstar_jax.verifier.sandbox import decimals, frames, programs
from rstar_jax.verifier.sandbox.answers import python_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
MARKUP = st.lists(st.sampled_from([*markers.SPECIAL_TOKENS, "\\boxed{", "{", "}", "\n", "print(1)", "7"]) | st.text())
ANSWERS = st.text("0123456789.,/+-() \\{}[]$%xifracsqrtpEI", max_size=30) | st.text(max_size=12)


def received(data: bytes) -> object:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return frames.receive(ours)


@given(VALUES)
def test_what_is_sent_is_received(value):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames.send(theirs, value)
        assert frames.receive(ours) == value


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: struct.pack("!I", len(data)) + data))
def test_a_frame_that_is_none_of_ours_is_refused(data):
    try:
        value = received(data)
    except ValueError:
        return
    assert value is None or json.loads(json.dumps(value)) == value or value != value


def test_a_frame_that_is_nested_too_deeply_is_refused():
    data = b"[" * 100_000
    try:
        received(struct.pack("!I", len(data)) + data)
    except ValueError as error:
        assert "nested too deeply" in str(error)
    else:
        raise AssertionError("expected a ValueError")


@given(st.binary(max_size=64), st.binary(min_size=16, max_size=16))
def test_a_page_without_the_secret_reports_nothing(content, secret):
    page = bytearray(4096)
    page[: len(content)] = content
    report = programs.read_report(page, secret)
    assert (report is None) == (bytes(page[:16]) != secret)


@given(MARKUP.map("".join))
def test_any_markup_can_be_read(text):
    assert markers.END_OF_CODE not in steps.code(text)
    answer = steps.boxed_answer(text)
    assert answer is None or "boxed{" in text and answer.count("{") == answer.count("}")


@given(st.text(st.characters(exclude_characters="{}")))
def test_a_boxed_answer_comes_back(answer):
    assume(not answer.rstrip().endswith("\\"))  # which would make the brace behind it a sign of the answer
    assert steps.boxed_answer(steps.boxed(answer)) == answer.strip()


@given(ANSWERS, ANSWERS)
def test_exact_comparison_raises_nothing(gold, answer):
    assert exact.compare(gold, answer) in (True, False, None)
    assert exact.compare(gold, gold) is (exact.normalized(gold) != "")
    value = exact.number(exact.normalized(gold))
    if value is not None:
        assert decimals.stands_for(answer, value) in (True, False)


@given(ANSWERS)
def test_python_text_is_read_or_not(text):
    value = python_text.read(text)  # powers that take for ever are the sandbox's to end
    assert value is None or isinstance(value, tuple | list | set | sympy.Basic | sympy.MatrixBase)
