"""Problem files of a user: what is read, and the one line that says what is wrong."""

import gzip
import json

import pytest

from rstar_jax.problems import jsonl
from rstar_jax.problems.problem import acceptable
from rstar_jax.verifier import Grader


def test_reads_questions_and_answers(tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text(
        '{"index": 7, "question": "1 + 1?", "answer": 2}\n\n{"question": "2?", "answer": "4", "level": 1}\n'
    )
    first, second = jsonl.read_problems(file)
    assert (first.id, first.question, first.answer, first.level) == ("7", "1 + 1?", "2", None)
    assert (second.id, second.answer, second.level) == ("3", "4", 1)  # without an id, its line number


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty, expected one JSON object a line"),
        ('{"question": "a", "answer": "b"}\n{"question": ', "line 2: not JSON"),
        ('{"question": "a", "answer": "b"}\n[1]', "line 2: expected an object with"),
        ('{"question": 1, "answer": "b"}', 'line 1: "question": expected a text'),
        ('{"question": " ", "answer": "b"}', 'line 1: "question": expected a text that is not empty'),
        (
            '{"question": "a", "answer": null}',
            'line 1: "answer": expected a text, a number, or a list of them, got null',
        ),
        ('{"question": "a", "answer": {"b": 1}}', 'line 1: "answer": expected a text'),
        ('{"question": "a", "answer": []}', 'line 1: "answer": expected a text'),
        ('{"question": "a", "answer": true}', 'line 1: "answer": expected a text'),
        ('{"question": "a", "answer": NaN}', "line 1: not JSON .NaN is no number"),
        ('{"question": "a", "answer": 1e100000}', "at most 400 digits"),
        ('{"question": "a", "answer": "b", "id": ["x"]}', "id: expected a text or an integer"),
        ('{"question": "a", "answer": "b", "level": "high"}', '"level": expected an integer'),
        ('{"question": "a", "answer": "b", "family": ["x"]}', '"family": expected a text'),
        ('{"question": "\\ud800", "answer": "b"}', "line 1: half a character"),
        ("[" * 100_000, "line 1: not JSON .nested too deeply"),
        ("[" + "1" * 5000 + "]", "line 1: expected an object"),
        ('{"id": "x", "question": "a", "answer": "b"}\n' * 2, "line 2: id 'x' occurs twice"),
    ],
)
def test_malformed_files_are_refused_with_their_line(tmp_path, content, message):
    file = tmp_path / "problems.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        jsonl.read_problems(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.jsonl: no such file"):
        jsonl.read_problems(tmp_path / "nothing.jsonl")


def test_training_rows_need_their_fields(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "a", "response": "b"}\n{"question": "a"}\n')
    with pytest.raises(ValueError, match="line 2: expected an object with the texts question, response"):
        jsonl.read_rows(file, ("question", "response"))


def test_lines_end_at_newlines_alone(tmp_path):
    """Not at what else a text may hold; a byte order mark is no part of it."""
    file = tmp_path / "problems.jsonl"
    questions = ["a\u2028b", "c\u2029d", "e\x85f", "é"]
    text = "".join(json.dumps({"question": q, "answer": "1"}, ensure_ascii=False) + "\r\n" for q in questions)
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [problem.question for problem in jsonl.read_problems(file)] == questions
    packed = tmp_path / "problems.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert [problem.question for problem in jsonl.read_problems(packed)] == questions
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"problems.jsonl.gz: not a whole gzip file"):
        jsonl.read_problems(packed)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_named(tmp_path, encoding):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "\u00e9", "answer": "1"}\n', encoding=encoding)
    with pytest.raises(ValueError, match="problems.jsonl, line 1: not UTF-8"):
        jsonl.read_problems(file)


def test_numbers_are_what_was_written(tmp_path):
    file = tmp_path / "problems.jsonl"
    written = ["1e22", "1e-07", "1E2", "0.10", "-3", "12345678901234567890123", "1.50e1"]
    read = ["1" + "0" * 22, "0.0000001", "100", "0.10", "-3", "12345678901234567890123", "15.0"]
    file.write_text("".join(f'{{"question": "a", "answer": {number}, "level": 5.0}}\n' for number in written))
    problems = jsonl.read_problems(file)
    assert [problem.answer for problem in problems] == read
    assert {problem.level for problem in problems} == {5}


def test_several_acceptable_answers(tmp_path):
    """As the files of some benchmarks have them: any is right, in a file, in the released format, for the grader."""
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "a", "answer": ["1/2", 0.25]}\n{"question": "b", "answer": ["7"]}\n')
    first, second = jsonl.read_problems(file)
    assert (acceptable(first.answer), second.answer) == (["1/2", "0.25"], "7")
    with Grader() as grader:
        golds = [first.answer] * 4
        assert grader.grade(list(zip(golds, ["0.5", "\\frac14", "3", "\\ldots"], strict=True))) == [
            True,
            True,
            False,
            None,
        ]


def test_ids_are_given_or_the_lines(tmp_path):
    file = tmp_path / "problems.jsonl"
    rows = [{"id": "2"}, {}, {"id": None}, {"id": None, "index": 9}, {}]
    file.write_text("".join(json.dumps({"question": "a", "answer": "1"} | row) + "\n" for row in rows))
    assert [problem.id for problem in jsonl.read_problems(file)] == ["2", "line 2", "3", "9", "5"]
