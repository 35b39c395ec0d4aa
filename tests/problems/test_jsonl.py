"""Problem files of a user: what is read, and the one line that says what is wrong."""

import pytest

from rstar_jax.problems import jsonl


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
        ('{"question": 1, "answer": "b"}', "line 1: expected an object with"),
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
