"""What one expansion makes of candidates: kinds, outputs, failures, duplicates."""

import dataclasses

from rstar_jax.problems.problem import Problem
from rstar_jax.search import expansion as expansion_module
from rstar_jax.search import search_all
from rstar_jax.search.tree import ROOT_INDEX, Kind
from rstar_jax.trajectory import markers

from . import scripted
from .scripted import step

CODE, ANSWER = markers.END_OF_CODE, markers.END_OF_ANSWER


def grow(script, verifier=None, problem_answer="3", **changes):
    config = dataclasses.replace(scripted.CONFIG, candidates=8, **changes)
    (tree,) = search_all(
        [Problem(id="p", question="1 + 2?", answers=(problem_answer,) if problem_answer else ())],
        sampler=scripted.Script(script),
        verifier=verifier or scripted.Verifier(),
        grader=scripted.Grader(),
        config=config,
    )
    return tree


def named(tree, text):
    return next(node for node in range(tree.size) if tree.text[node].startswith(text))


FIRST = step("<code>\nx = 1\nprint('first')\n")
CLOSING = step("\nprint(x + 2)\n", CODE)
CLOSED = FIRST.text + CLOSING.text + "\n<output>first\n3<end_of_output>"
RIGHT, WRONG = step("\n<answer>\\boxed{3}", ANSWER), step("\n<answer>\\boxed{4}", ANSWER)
SCRIPT = {"": [FIRST], FIRST.text: [CLOSING], CLOSED: [RIGHT, WRONG]}


def test_the_output_of_the_whole_block_is_appended_with_its_tokens():
    verifier = scripted.Verifier()
    tree = grow(SCRIPT, verifier)
    closed = named(tree, CLOSING.text)
    assert tree.response_text(closed) == CLOSED
    assert tuple(tree.tokens[closed]) == CLOSING.tokens + scripted.encode("\n<output>first\n3<end_of_output>")
    assert tree.output == ["", "first\n", "3\n", "", ""], "a node keeps what its own code printed"
    assert tree.kind.tolist() == [Kind.ROOT, Kind.STEP, Kind.CODE, Kind.ANSWER, Kind.ANSWER]
    first, second = verifier.requests
    assert (first.prefix, first.candidates) == ("", ("x = 1\nprint('first')",))
    assert (second.prefix, second.candidates) == ("x = 1\nprint('first')", ("print(x + 2)",))


def test_all_answers_of_an_expansion_are_backed_up():
    tree = grow(SCRIPT)
    assert tree.visits.tolist() == [2, 2, 2, 1, 1]
    assert tree.correct.tolist() == [-1, -1, -1, 1, 0]
    assert [tree.q(node) for node in range(5)] == [0, 0, 0, 1, -1]
    assert tree.exhausted.all()


def test_only_the_first_answer_stays_where_the_released_code_is_followed():
    tree = grow(SCRIPT, first_answer_only=True)
    assert tree.answer == [None, None, None, "3"]


def test_equal_texts_merge_and_the_first_stays():
    other = step("<code>\nx = 2\n")
    script = SCRIPT | {"": [dataclasses.replace(FIRST, logprob=-5.0), other, FIRST], other.text: [step("", "")]}
    verifier = scripted.Verifier()
    tree = grow(script, verifier, rollouts=1)
    assert [tree.text[child] for child in tree.children(ROOT_INDEX)] == [FIRST.text, other.text]
    assert tree.logprob[1] == -5.0
    assert len(verifier.requests[0].candidates) == 2


def test_a_second_block_starts_from_nothing():
    again = step("\n<code>\nprint('again')\n", CODE)
    verifier = scripted.Verifier()
    closed_again = CLOSED + again.text + "\n<output>again<end_of_output>"
    tree = grow(SCRIPT | {CLOSED: [again], closed_again: [RIGHT]}, verifier)
    assert verifier.requests[-1].prefix == ""
    assert tree.response_text(named(tree, again.text)) == closed_again


def test_ways_to_fail():
    script = {
        "": [
            step("<code>\nlong", "length"),
            step("<code>\nended", ""),
            step("no box here", ANSWER),
            step("<answer>\\boxed{}", ANSWER),
            step("<code>\n1 / 0\n"),
            step("<code>\n" + "#" * 3000 + "\n"),
        ]
    }
    verifier = scripted.Verifier()
    tree = grow(script, verifier)
    assert tree.kind.tolist() == [Kind.ROOT] + [Kind.FAILED] * 6
    assert tree.error[1:] == [
        expansion_module.CUT_SHORT,
        expansion_module.NO_MARKER,
        expansion_module.NO_BOX,
        expansion_module.NO_BOX,
        "ZeroDivisionError: division by zero",
        expansion_module.TOO_LONG,
    ]
    assert tree.visits.tolist() == [0] + [1] * 6, "a failure is no news for its parent"
    assert [tree.q(node) for node in range(1, 7)] == [-1.0] * 6
    assert tree.exhausted.all()
    assert [len(request.candidates) for request in verifier.requests] == [1], "what failed before is not run"


def test_the_last_step_must_answer():
    tree = grow(SCRIPT, max_depth=3)
    assert tree.answers()
    tree = grow(SCRIPT, max_depth=2)
    assert tree.error[2] == expansion_module.TOO_DEEP and not tree.answers()


def test_a_statement_cut_in_two_survives_a_threshold_of_two():
    head, tail = step("<code>\nfor i in range(2):\n"), step("\n    print(i)\n", CODE)
    closed = head.text + tail.text + "\n<output>0\n1<end_of_output>"
    script = {"": [head], head.text: [tail], closed: [RIGHT]}
    tree = grow(script, max_consecutive_errors=2)
    assert tree.consecutive_errors.tolist() == [0, 1, 0, 0]
    assert tree.verdict == ["", "error", "ok", ""]
    assert tree.answers() == [3]
    tree = grow(script, max_consecutive_errors=1)
    assert tree.size == 2 and tree.kind[1] == Kind.FAILED


def test_errors_in_a_row_end_a_path_and_show_as_output():
    bad, worse = step("<code>\nu\n"), step("\nv\n", CODE)
    tree = grow({"": [bad], bad.text: [worse]}, max_consecutive_errors=2)
    assert tree.kind.tolist() == [Kind.ROOT, Kind.STEP, Kind.FAILED]
    assert tree.text[2] == worse.text + "\n<output>NameError: name 'u' is not defined<end_of_output>"
    assert tree.visits.tolist() == [0, 0, 1]
