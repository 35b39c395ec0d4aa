"""Files of problems: what is read, however it is packed, and the one line that says what is wrong."""

import gzip
import json
import random

import pyarrow
import pytest
from pyarrow import parquet

from rstar_jax.problems import jsonl, rows
from rstar_jax.problems.fields import BOX, Fields
from rstar_jax.problems.problem import level_order
from rstar_jax.problems.sources import FileProblems
from rstar_jax.verifier import Grader


def read(*files, blind=False, **options):
    return FileProblems(files=tuple(map(str, files)), **options).read(blind=blind)


def test_reads_questions_and_answers(tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text(
        '{"index": 7, "question": "1 + 1?", "answer": 2}\n\n{"question": "2?", "answer": "4", "level": 1}\n'
    )
    first, second = read(file)
    assert (first.id, first.question, first.answers, first.level) == ("7", "1 + 1?", ("2",), None)
    assert (second.id, second.answers, second.level) == ("3", ("4",), "1")  # without an id, its line number


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
        ('{"question": "a", "answer": "b", "level": [1]}', '"level": expected a text or a number'),
        ('{"question": "a", "answer": "b", "source": {"x": 1}}', '"source": expected a text'),
        ('{"question": "a", "answer": ""}', "no problem with an answer"),
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
        read(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.jsonl: no such file"):
        read(tmp_path / "nothing.jsonl")


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
    assert [problem.question for problem in read(file)] == questions
    packed = tmp_path / "problems.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert [problem.question for problem in read(packed)] == questions
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"problems.jsonl.gz: not a whole gzip file"):
        read(packed)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_named(tmp_path, encoding):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "\u00e9", "answer": "1"}\n', encoding=encoding)
    with pytest.raises(ValueError, match="problems.jsonl, line 1: not UTF-8"):
        read(file)


def test_numbers_are_what_was_written(tmp_path):
    file = tmp_path / "problems.jsonl"
    written = ["1e22", "1e-07", "1E2", "0.10", "-3", "12345678901234567890123", "1.50e1"]
    expected = ["1" + "0" * 22, "0.0000001", "100", "0.10", "-3", "12345678901234567890123", "15.0"]
    file.write_text("".join(f'{{"question": "a", "answer": {number}, "level": 5.0}}\n' for number in written))
    problems = read(file)
    assert [problem.answers for problem in problems] == [(answer,) for answer in expected]
    assert {problem.level for problem in problems} == {"5"}


def test_several_acceptable_answers(tmp_path):
    """As the files of some benchmarks have them: any is right, in a file, in the released format, for the grader."""
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "a", "answer": ["1/2", 0.25]}\n{"question": "b", "answer": ["7"]}\n')
    first, second = read(file)
    assert (first.answers, second.answers) == (("1/2", "0.25"), ("7",))
    with Grader() as grader:
        golds = [first.answers] * 4
        assert grader.grade(list(zip(golds, ["0.5", "\\frac14", "3", "\\ldots"], strict=True))) == [
            True,
            True,
            False,
            None,
        ]
        assert grader.grade([((), "3")]) == [None], "nobody knows whether it is right"


def test_ids_are_given_or_the_lines(tmp_path):
    file = tmp_path / "problems.jsonl"
    rows = [{"id": "2"}, {}, {"id": None}, {"id": None, "index": 9}, {}]
    file.write_text("".join(json.dumps({"question": "a", "answer": "1"} | row) + "\n" for row in rows))
    assert [problem.id for problem in read(file)] == ["2", "line 2", "3", "9", "5"]


def test_every_form_of_a_file_says_the_same(tmp_path, monkeypatch):
    """Also where an item of a list is longer than what is read at a time."""
    monkeypatch.setattr(rows, "_CHUNK", 7)
    draw = random.Random(1)
    texts = ["".join(draw.choices('ab[]{}",\\\u2028\u00e9\n ', k=draw.randint(1, 40))) + "?" for _ in range(50)]
    made = [
        {
            "question": text,
            "answer": str(draw.randint(-9, 9)),
            "level": draw.choice(["1", "2.5", None]),
            "solution": text,
        }
        for text in texts
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (tmp_path / "own.jsonl.gz").write_bytes(gzip.compress((tmp_path / "own.jsonl").read_bytes()))
    (tmp_path / "own.json").write_text(json.dumps(made, indent=draw.choice([None, 2]), ensure_ascii=False))
    parquet.write_table(pyarrow.Table.from_pylist(made), tmp_path / "own.parquet", row_group_size=7)
    found = {suffix: read(tmp_path / f"own{suffix}") for suffix in rows.SUFFIXES}
    assert len(set(map(tuple, found.values()))) == 1
    first = found[".jsonl"]
    assert [own.question for own in first] == [text.strip() for text in texts]
    assert [own.solution for own in first] == texts and [own.level for own in first] == [row["level"] for row in made]
    blind = read(tmp_path / "own.parquet", blind=True)
    assert blind == [own.blind() for own in first] and {(own.answers, own.solution) for own in blind} == {((), "")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"question": "a"}', "a.json: expected a JSON list"),
        ("a.json", "", "a.json: expected a JSON list"),
        ("a.json", "[]", "a.json: empty"),
        ("a.json", '[{"question": "a", "answer": "1"}, {"question"', "a.json, item 2: not JSON"),
        ("a.json", '[{"question": "a", "answer": NaN}]', "a.json, item 1: not JSON"),
        ("a.json", "[" * 100_000, "a.json, item 1: not JSON .nested too deeply"),
        ("a.json", b"[\xff]", "a.json: not UTF-8"),
        ("a.parquet", "PAR1", "a.parquet: not Parquet"),
    ],
)
def test_what_a_file_is_not(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_columns_are_said(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"problem": "q", "gold": 3, "name": "n", "difficulty": 4.5, "kind": "x"}\n')
    fields = Fields(question="problem", answer="gold", id="name", level="difficulty", source="kind")
    (own,) = read(tmp_path / "a.jsonl", name="set", fields=fields)
    assert (own.id, own.question, own.answers, own.level, own.source) == ("set/n", "q", ("3",), "4.5", "set/x")
    with pytest.raises(ValueError, match='line 1: "nothing": no such field, only "problem", "gold"'):
        read(tmp_path / "a.jsonl", fields=Fields(question="problem", answer="gold", level="nothing"))


@pytest.mark.parametrize(
    ("fields", "text", "answer"),
    [
        (Fields(behind="####"), "48 / 2 = 24\n#### 7\n#### 1,072 ", "1,072"),
        (Fields(behind="####"), "nothing said", None),
        (Fields(behind="####"), "#### ", None),
        (Fields(behind="The answer is:"), "so.\nThe answer is: 5/6\nOr so.", "5/6"),
        (Fields(behind=BOX), r"$\boxed{1}$, so $\boxed{\frac{1}{\sqrt{2}}}$ it is", r"\frac{1}{\sqrt{2}}"),
        (Fields(behind=BOX), r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (Fields(behind=BOX), r"$\boxed 12$.", "12"),
        (Fields(behind=BOX), r"$\boxed{3}$ and then $\boxed{4", "3"),
        (Fields(behind=BOX), r"$\boxed{}$", None),
        (Fields(behind=BOX, one_box=True), r"(1) $\boxed{3}$ (2) $\boxed{4}$", None),
        (Fields(behind=BOX, one_box=True), r"$\boxed{x = 3}$, that is $\boxed{x=3}$", "x=3"),
        (Fields(behind=BOX, no_answer=("qed", "proof")), r"$\boxed{\text{Q.E.D.}}$", None),
        (Fields(behind=BOX, no_answer=("qed", "proof")), r"$\boxed{\text{proof of } 3}$", r"\text{proof of } 3"),
        (Fields(no_answer=("proof",)), "Proof", None),
        (Fields(no_answer=("proof",)), None, None),
    ],
)
def test_answers_are_taken_out_of_their_column(tmp_path, caplog, fields, text, answer):
    caplog.set_level("INFO")
    other = {"question": "known", "answer": "#### 1 \\boxed{1} The answer is: 1"}
    made = [{"question": "asked", "answer": text}, other]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    found = [own.answers for own in read(tmp_path / "a.jsonl", fields=fields) if own.question == "asked"]
    assert found == ([] if answer is None else [(answer,)])
    assert ("1 of 2 problems are left out" in caplog.text) == (answer is None)


def test_several_files_are_told_apart_and_limited(tmp_path):
    made = ""
    for name in ("algebra/train", "geometry/train"):
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir()
        file.write_text(
            '{"question": "a", "answer": "1", "kind": "x"}\n{"question": "b", "answer": "1", "kind": "y"}\n'
        )
        made += f"{file} "
    files = made.split()
    ids = [own.id for own in read(*files)]
    assert ids == ["algebra/train/1", "algebra/train/2", "geometry/train/1", "geometry/train/2"]
    assert sorted(own.id for own in read(*files[::-1])) == ids, "an id does not depend on the order"
    assert [own.id for own in read(*files, limit=3)] == ids[:3]
    assert [own.id for own in read(*files, only={"kind": ("y",)}, name="m")] == [f"m/{name}" for name in ids[1::2]]


def test_a_search_needs_no_answers(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "a"}\n{"question": "b", "answer": null}\n')
    assert [own.answers for own in read(tmp_path / "a.jsonl", blind=True)] == [(), ()]
    with pytest.raises(ValueError, match='line 1: expected an object with "question" .text. and "answer"'):
        read(tmp_path / "a.jsonl")


def test_levels_are_in_the_order_that_people_expect():
    levels = ["10", "2", "4.5", "1", "hard", "grade 10", "grade 9", "easy"]
    expected = ["1", "2", "4.5", "10", "easy", "grade 9", "grade 10", "hard"]
    for seed in range(5):
        random.Random(seed).shuffle(levels)
        assert sorted(levels, key=level_order) == expected
