"""Sources with a name or a folder: local copies, the hub, TFDS, and what `--problems=` may say."""

import dataclasses
import json

import huggingface_hub
import pyarrow
import pytest
from pyarrow import parquet

from rstar_jax.problems import commands, datasets, named
from rstar_jax.problems.fields import Fields
from rstar_jax.problems.mixture import Mixture
from rstar_jax.problems.sources import FOLDER, FileProblems, ProblemSet, TfdsProblems
from tests.problems import tfds_builder

OURS = ProblemSet(
    name="ours",
    repository="nobody/nothing",
    files=("data/one.parquet", "data/two.parquet"),
    license="mit",
    fields=Fields(question="problem", answer="solution", behind="####", level="level"),
)
HUB_ROWS = [{"problem": f"{n} + {n}?", "solution": f"so\n#### {2 * n}", "level": f"Level {n}"} for n in range(1, 7)]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No local copies, and a hub that is not there."""
    monkeypatch.delenv(FOLDER, raising=False)

    def refused(*arguments, **more):
        raise ConnectionError("no route to the hub. Try again")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)


def summary(problems):
    return [(own.question, own.answers, own.level, own.source) for own in problems]


EXPECTED = [(f"{n} + {n}?", (str(2 * n),), str(n), "ours") for n in range(1, 7)]


def test_the_hub_is_asked_for_files_of_a_revision(monkeypatch, tmp_path):
    asked = []

    def hub_download(repository, file, *, repo_type, revision):
        asked.append((repository, file, repo_type, revision))
        path = tmp_path / repository / file
        path.parent.mkdir(parents=True, exist_ok=True)
        half = HUB_ROWS[:4] if "one" in file else HUB_ROWS[4:]
        parquet.write_table(pyarrow.Table.from_pylist(half), path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub_download)
    problems = dataclasses.replace(OURS, revision="abc").read()
    assert asked == [("nobody/nothing", file, "dataset", "abc") for file in OURS.files]
    assert summary(problems) == EXPECTED
    assert [own.id for own in problems] == [
        "ours/one/1",
        "ours/one/2",
        "ours/one/3",
        "ours/one/4",
        "ours/two/1",
        "ours/two/2",
    ]


@pytest.mark.parametrize("form", ["the hub's rows", "ours", "the hub's files"])
def test_a_local_copy_comes_first(monkeypatch, tmp_path, form):
    if form == "the hub's files":
        for file, half in zip(OURS.files, (HUB_ROWS[:1], HUB_ROWS[1:]), strict=True):
            (tmp_path / "ours" / file).parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(half), tmp_path / "ours" / file)
    else:
        rows = HUB_ROWS
        if form == "ours":
            rows = [{"question": own[0], "answer": own[1][0], "level": own[2]} for own in EXPECTED]
        (tmp_path / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert summary(dataclasses.replace(OURS, folder=str(tmp_path)).read()) == EXPECTED
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert summary(dataclasses.replace(OURS, limit=2).read()) == EXPECTED[:2]
    assert {own.answers for own in OURS.read(blind=True)} == {()}


def test_a_set_that_is_nowhere_says_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        OURS.read()
    for part in ("ours: ", "RSTAR_PROBLEMS names no folder", "nobody/nothing", "no route to the hub", "ours.jsonl"):
        assert part in str(raised.value)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"ours: no copy here .not in {tmp_path}.") as raised:
        OURS.read()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", named.names())
def test_every_set_says_where_it_comes_from(name):
    source = named.find(name)
    if isinstance(source, Mixture):
        assert source.avoid and all(isinstance(part, ProblemSet) for part in (*source.parts, *source.avoid))
        return
    assert source.name == name and source.repository.count("/") == 1 and source.license
    assert all(file.endswith((".parquet", ".jsonl", ".json")) for file in source.files) and source.files
    assert source.size is None or source.size > 0
    given = [getattr(source.fields, column) for column in ("question", "answer", "level", "solution", "source", "id")]
    assert given[0] and given[1] and all(column is None or isinstance(column, str) for column in given)


def test_the_paper_s_problems_avoid_every_benchmark():
    benchmarks = {own.name for own in named.find("numina_metamath").avoid}
    trained_on = {"gsm8k_train", "math_train", "numina_math_cot", "metamath_qa", "numina_metamath"}
    assert benchmarks == set(named.names()) - trained_on


def test_tfds_problems(tmp_path):
    tfds_builder.prepare(tmp_path)
    source = TfdsProblems(folder=str(tmp_path), split="round_1")
    problems = source.read()
    assert [own.level for own in problems] == ["1"] * 2 + ["2"] * 3 + ["3"] * 4 + ["4"] * 2
    assert {own.source for own in problems} == {"leg_counting"} and all(len(own.answers) == 1 for own in problems)
    assert source.read(blind=True) == [own.blind() for own in problems]
    worked = Fields(question="question", answer="worked_example", behind="\\boxed", solution="worked_example")
    taken = TfdsProblems(folder=str(tmp_path), split="bootstrap", name="toy", fields=worked).read()
    given = TfdsProblems(folder=str(tmp_path), split="bootstrap").read()
    assert [own.answers for own in taken] == [own.answers for own in given] and all(own.solution for own in taken)
    assert [own.id for own in taken] == [f"toy/{own.id}" for own in given] and {own.source for own in taken} == {"toy"}
    with pytest.raises(ValueError, match="has no split 'test'"):
        TfdsProblems(folder=str(tmp_path), split="test").read()


def test_a_data_set_that_was_cut_off_does_not_count(tmp_path):
    tfds_builder.prepare(tmp_path)
    (whole,) = tmp_path.glob("*/1.0.0")
    broken = whole.parent / "incomplete.ABC_1.0.0"
    broken.mkdir()
    (broken / "dataset_info.json").write_text("{}")
    assert len(datasets.read_problems(tmp_path, "heldout")) == 4


def test_what_problems_may_say(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        (tmp_path / "files" / f"{name}.jsonl").write_text('{"question": "q", "answer": "1"}\n')
    one = named.find(str(tmp_path / "files" / "a.jsonl"))
    assert one == FileProblems(files=(str(tmp_path / "files" / "a.jsonl"),)) and one.read()[0].id == "1"
    assert [own.id for own in named.find(str(tmp_path / "files")).read()] == ["a/1", "b/1"]
    tfds_builder.prepare(tmp_path / "toy")
    with pytest.raises(ValueError, match="has the splits .*say one as"):
        named.find(str(tmp_path / "toy"))
    assert len(named.find(f"{tmp_path / 'toy'}:heldout").read()) == 4
    (tmp_path / "mine.gin").write_text(
        "from __gin__ import dynamic_registration\nfrom rstar_jax.problems import sources\n"
        f"MINE = @sources.FileProblems()\nsources.FileProblems.files = ('{tmp_path}/files/b.jsonl',)\n"
    )
    assert len(named.find(str(tmp_path / "mine.gin")).read()) == 1
    (tmp_path / "other.gin").write_text("MINE = 3\n")
    with pytest.raises(ValueError, match="other.gin: "):
        named.find(str(tmp_path / "other.gin"))
    with pytest.raises(FileNotFoundError, match="--problems=gsm8k: no such file or folder.*gsm8k_test") as raised:
        named.find("gsm8k")
    assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="neither a TFDS data set nor"):
        (tmp_path / "empty").mkdir()
        named.find(str(tmp_path / "empty"))


def test_problems_are_written_to_be_read_elsewhere(tmp_path, capsys):
    rows = [{"id": "x", "question": "a\u2028?", "answer": ["1", "2"], "level": "5", "solution": "s"}]
    rows += [{"question": "b", "answer": ""}, {"question": "c", "answer": 0.10}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands.write(problems=str(tmp_path / "in.jsonl"), output=str(tmp_path / "new" / "out.jsonl"))
    assert capsys.readouterr().out == f"{tmp_path}/new/out.jsonl\n"
    written, read = (FileProblems(files=(f"{tmp_path}/{name}.jsonl",)).read() for name in ("new/out", "in"))
    assert written == read and [path.name for path in (tmp_path / "new").iterdir()] == ["out.jsonl"]


def test_what_was_written_is_a_local_copy(tmp_path, monkeypatch):
    """With the same ids and sources, and to be chosen from by them."""
    rows = [{"problem": f"{n}?", "solution": f"#### {n}", "level": "1", "kind": "ab"[n % 2]} for n in range(6)]
    (tmp_path / "hub" / "ours").mkdir(parents=True)
    (tmp_path / "hub" / "ours" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = dataclasses.replace(OURS.fields, source="kind")
    source = dataclasses.replace(OURS, files=("a.jsonl",), fields=fields, folder=str(tmp_path / "hub"))
    monkeypatch.setattr(commands.named, "find", lambda name: source)
    commands.write(problems="ours", output=str(tmp_path / "copies" / "ours.jsonl"))
    copied = dataclasses.replace(source, folder=str(tmp_path / "copies"))
    assert copied.read() == source.read() and {own.source for own in copied.read()} == {"ours/a", "ours/b"}
    chosen = {"only": {"kind": ("b",)}}
    some = dataclasses.replace(copied, **chosen).read()
    assert some == dataclasses.replace(source, **chosen).read() and len(some) == 3
