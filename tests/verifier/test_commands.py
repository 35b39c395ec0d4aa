"""The commands read and write lines in order, and name the file and line of what is wrong."""

import io
import json
import subprocess
import sys

import pytest

from rstar_jax.verifier import Limits, commands

LIMITS = Limits(cpu_seconds=1.0)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_verify_round_trip(tmp_path):
    given, made = tmp_path / "programs.jsonl", tmp_path / "outcomes.jsonl"
    rows = [{"prefix": "x = 1", "candidates": [f"print(x + {i})", "1 / 0"]} for i in range(300)]
    given.write_text("\n\n".join(json.dumps(row) for row in rows + [{"candidates": []}]))
    commands.verify(input=str(given), output=str(made), limits=LIMITS, workers=2)
    *got, empty = lines(made)
    assert empty == {"outcomes": []}
    assert [row["outcomes"][0]["output"] for row in got] == [f"{i + 1}\n" for i in range(300)]
    assert got[0]["outcomes"][1].keys() == {"verdict", "output", "error", "cpu_seconds"}
    assert (got[0]["outcomes"][1]["verdict"], got[0]["outcomes"][0]["verdict"]) == ("error", "ok")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outcomes.jsonl", "programs.jsonl"]


def test_grade_round_trip_over_the_standard_streams(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"gold": "1", "answer": "1.0"}\n{"gold": "1", "answer": "2"}\n'))
    commands.grade(input="-", output="-")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"equal": True}, {"equal": False}]


@pytest.mark.parametrize(
    "mode, line, answer",
    [
        ("verify", {"candidates": ["print(1)"]}, "1\n"),
        ("grade", {"gold": "x + 1", "answer": "1 + x"}, True),
    ],
)
def test_a_line_is_answered_before_the_next_one_comes(mode, line, answer):
    command = [sys.executable, "-m", "rstar_jax.main", mode, "--input=-", "--output=-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        given = json.loads(process.stdout.readline())
        assert (given["equal"] if mode == "grade" else given["outcomes"][0]["output"]) == answer
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("line", ["{", "[]", '"print(1)"', '{"candidates": "print(1)"}', '{"candidates": [1]}',
                                  '{"candidates": [], "prefix": 1}', '{"prefix": "x"}'])  # fmt: skip
def test_a_malformed_request_is_named_and_nothing_is_written(tmp_path, line):
    given, made = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    made.write_text("old")
    given.write_text('{"candidates": ["print(1)"]}\n\n' + line + "\n")
    with pytest.raises(ValueError) as caught:
        commands.verify(input=str(given), output=str(made), limits=LIMITS, workers=1)
    message = str(caught.value)
    expected = 'expected an object with "candidates" (a list of strings)' if line != "{" else "not JSON"
    assert message.startswith(f"{given}, line 3: {expected}") and "\n" not in message
    assert message.endswith(f"got {line}") or line == "{"
    assert made.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_a_malformed_pair_is_named(tmp_path):
    given = tmp_path / "in.jsonl"
    given.write_text('{"gold": "1", "answer": null}\n')
    with pytest.raises(ValueError, match='line 1: expected an object with "gold" and "answer"'):
        commands.grade(input=str(given), output=str(tmp_path / "out.jsonl"))


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no_such_file"):
        commands.grade(input=str(tmp_path / "no_such_file"), output="-")
    with pytest.raises(FileNotFoundError, match="expected its folder to exist"):
        commands.grade(input="-", output=str(tmp_path / "no_such_folder" / "out.jsonl"))
