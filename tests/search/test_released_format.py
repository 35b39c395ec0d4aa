"""Trees go to the released JSONL format and come back; what is malformed there is one line."""

import json
import os
import pathlib

import numpy as np
import pytest

from rstar_jax import main
from rstar_jax.problems.problem import Problem
from rstar_jax.search import Kind, Tree, read_trees, search_all, storage, write_shard
from rstar_jax.search.expansion import CUT_SHORT, TOO_DEEP, TOO_LONG
from rstar_jax.search.released_format import (
    CODE_ERRORS,
    NOT_PARSED,
    TOO_MANY_STEPS,
    from_released,
    read_jsonl,
    to_released,
    write_jsonl,
)
from rstar_jax.search.tree import ROOT_INDEX, Node
from rstar_jax.trajectory import steps
from rstar_jax.verifier.protocol import Verdict

from . import scripted

MODES = {"terminal": 1, "ppm": 2, "test": 1}  # value mode: errors in a row that end a path
LOST = ("tokens", "logprob", "error", "value_sum")

_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "official" / "golden_trees"
GOLDEN = sorted(pathlib.Path(os.environ.get("RSTAR_GOLDEN_TREES", _BESIDE)).glob("[gpt]*_*.json"))


def searched(mode, errors):
    config = {**{name: getattr(scripted.CONFIG, name) for name in scripted.CONFIG.__dataclass_fields__}}
    config.update(value_mode=mode, max_consecutive_errors=errors)
    return search_all(
        scripted.problems(6),
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=None if mode == "test" else scripted.Grader(),
        scorer=None if mode == "terminal" else scripted.Scorer(),
        config=type(scripted.CONFIG)(**config),
    )


def small_tree():
    problem = Problem(id="p", question="1 + 1?\n", answers=("2",), level="3", source="sums")
    tree = Tree(problem, key=1, prompt=steps.prompt("1 + 1?\n"), prompt_tokens=())
    tree.add(ROOT_INDEX, Node(text="<code>\n<end_of_step>", tokens=(), kind=Kind.STEP, verdict="ok", output="\ud800"))
    return tree


def kept(tree):
    """What the format has a place for."""
    record = tree.to_dict()
    columns = {name: column for name, column in record["columns"].items() if name not in LOST}
    return record["problem"], columns, [tree.q(node) for node in range(tree.size)]


@pytest.mark.parametrize("mode", MODES)
def test_there_and_back(mode, tmp_path):
    trees = searched(mode, MODES[mode])
    write_jsonl(tmp_path / "trees.jsonl", trees)
    back = list(read_jsonl(tmp_path / "trees.jsonl"))
    assert len(back) == len(trees)
    for tree, copy in zip(trees, back, strict=True):
        assert kept(copy) == kept(tree)
        np.testing.assert_allclose(copy.value_sum, tree.value_sum, rtol=1e-15)
        if mode == "terminal":
            assert copy.value_sum.tolist() == tree.value_sum.tolist()
        assert not any(copy.tokens) and set(copy.logprob) == {0.0}
        for node in np.flatnonzero(tree.kind != Kind.FAILED):
            assert copy.error[node] == tree.error[node]
    assert {kind for tree in trees for kind in tree.kind} == set(Kind), "the search was too small to show anything"


def test_the_fields_of_the_released_code():
    tree = small_tree()
    node = Node(text="<end_of_code>\n<output>2<end_of_output>", tokens=(5,), kind=Kind.CODE, verdict="ok", output="2\n")
    tree.add(1, node)
    tree.add(2, Node(text="\n<answer>\\boxed{2}<end_of_answer>", tokens=(), kind=Kind.ANSWER, answer="2"))
    for index in (3, 2, 1, 0):
        tree.update(index, 1.0)
    row = json.loads(json.dumps(to_released(tree)))
    assert {name: row[name] for name in row if name != "rstar"} == {
        "index": "p",
        "question": "1 + 1?\n",
        "answer": "2",
        "source": "sums",
        "level": "3",
    }
    empty = {"extra_info": "", "action": "", "action_input": "", "final_answer": ""}
    values = {"value": 1.0, "q_value": 1.0, "visit_count": 1}
    assert list(row["rstar"]) == ["0", "0.1", "0.1.1", "0.1.1.1"]
    assert row["rstar"]["0"] == {**empty, "text": "", "extra_info": "question: 1 + 1?\n", **values}
    ran = {"action": "python_interpreter", "action_input": "<end_of_code>", "observation": "2\n"}
    assert row["rstar"]["0.1.1"] == {**empty, **ran, "text": node.text, **values}
    assert row["rstar"]["0.1.1.1"] == {**empty, "text": tree.text[3], "final_answer": "2", **values}


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        ("NameError: name 'x' is not defined", Verdict.ERROR, CODE_ERRORS),
        ("division by zero", Verdict.ERROR, CODE_ERRORS),
        ("timeout_cpu", Verdict.TIMEOUT_CPU, CODE_ERRORS),
        ("SystemExit: 0", Verdict.EXIT, CODE_ERRORS),
        ("its cell was lost, twice", Verdict.UNVERIFIED, NOT_PARSED),
        (TOO_DEEP, "", TOO_MANY_STEPS),
        (TOO_LONG, Verdict.OK, TOO_MANY_STEPS),
        (CUT_SHORT, "", NOT_PARSED),
    ],
)
def test_failures(error, verdict, reason):
    tree = small_tree()
    consecutive_errors = int(verdict not in ("", Verdict.OK))
    node = Node(text="x", tokens=(), kind=Kind.FAILED, verdict=str(verdict), error=error)
    node.consecutive_errors = consecutive_errors
    tree.add(1, node)
    tree.update(2, -1.0)
    row = to_released(tree)
    assert row["rstar"]["0.1.1"]["final_answer"] == reason
    copy = from_released(row, default_id="")
    assert kept(copy)[1]["verdict"] == kept(tree)[1]["verdict"]
    assert copy.error[2] == (error if consecutive_errors else TOO_DEEP if reason == TOO_MANY_STEPS else reason)
    assert to_released(copy)["rstar"] == row["rstar"]
    assert copy.consecutive_errors[2] == consecutive_errors and copy.kind[2] == Kind.FAILED


def test_trees_that_others_wrote():
    state = {"text": "", "final_answer": "", "value": 0, "q_value": 0, "visit_count": 0}
    row = {"question": "q", "answer": ["1", "2"], "rstar": {tag: dict(state) for tag in ("0", "0.10", "0.10.1", "0.2")}}
    row["rstar"]["0.10"].update(text="c<end_of_code>", observation="margin of error: 3")
    row["rstar"]["0.10.1"].update(text="f", final_answer=CODE_ERRORS)
    row["rstar"]["0.2"].update(text="a", final_answer="['1', '2']", value=1, q_value=1, visit_count=1)
    tree = from_released(row, default_id="7")
    assert tree.problem == Problem(id="7", question="q", answers=("1", "2"))
    assert tree.text[1:] == ["a", "c<end_of_code>", "f"], "siblings stand in the order of their numbers"
    assert tree.kind.tolist() == [Kind.ROOT, Kind.ANSWER, Kind.CODE, Kind.FAILED] and tree.correct[1] == 1
    assert tree.verdict == ["", "", "ok", "error"] and tree.output[2] == "margin of error: 3"
    assert tree.exhausted.all() and tree.consecutive_errors.tolist() == [0, 0, 0, 1]
    for node in row["rstar"].values():  # of a beam search
        del node["q_value"], node["visit_count"]
    assert from_released(row, default_id="7").visits.tolist() == [0, 1, 0, 0]


@pytest.mark.skipif(not GOLDEN, reason="no golden trees: set RSTAR_GOLDEN_TREES to their folder")
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_recorded_trees_of_the_released_code(path):
    record = json.loads(path.read_text())
    fields = ("text", "final_answer", "observation", "value", "q_value", "visit_count")
    states = {tag: {name: node[name] for name in fields if name in node} for tag, node in record["tree"].items()}
    tree = from_released(
        {"question": record["question"], "answer": record["ground_truth"], "rstar": states}, default_id="1"
    )
    back = to_released(tree)["rstar"]
    assert list(back) == list(states)
    for node, (tag, state) in enumerate(states.items()):
        observation = state.pop("observation", None)
        assert {name: back[tag][name] for name in state} == state
        assert tree.depth[node] == record["tree"][tag]["depth"]
        if observation is not None and back[tag]["observation"] != observation:
            assert back[tag]["observation"] == f"Error (error): {observation}"
        if not record["quirks"]:
            assert tree.consecutive_errors[node] == record["tree"][tag]["consecutive_errors"]
            assert tree.exhausted[node] or not record["tree"][tag]["is_terminal"]
            assert tree.correct[node] in (-1, record["tree"][tag].get("correct"))


def convert(capsys, source, target):
    status = main.main(["convert", f"--input={source}", f"--output={target}"])
    captured = capsys.readouterr()
    assert captured.err.count("\n") == (status != 0)
    return status, captured.err or captured.out


def test_the_command(tmp_path, capsys):
    trees = searched("terminal", 1)
    write_shard(tmp_path / "trees", 0, 2, trees[:4])
    path = write_shard(tmp_path / "trees", 1, 2, trees[4:])
    released = tmp_path / "new" / "released.jsonl"
    assert convert(capsys, tmp_path / "trees", released) == (0, f"{released}\n")
    assert convert(capsys, path, tmp_path / "new" / "tail.jsonl")[0] == 0
    assert released.read_text().endswith((tmp_path / "new" / "tail.jsonl").read_text())
    assert convert(capsys, released, tmp_path / "back")[0] == 0
    assert [kept(tree) for tree in read_trees(tmp_path / "back")] == [kept(tree) for tree in trees]
    assert convert(capsys, tmp_path / "new", tmp_path / "both")[0] == 0
    assert len(list(read_trees(tmp_path / "both"))) == 8
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["released.jsonl", "tail.jsonl"]


def test_bad_input_of_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RSTAR_TRACEBACK", raising=False)
    good, file = json.dumps(to_released(small_tree())), tmp_path / "x.jsonl"

    def fault(line):
        file.write_text(f"{good}\n\n{line}\n")
        status, message = convert(capsys, file, tmp_path / "out")
        assert status == 2 and f"{file}, line 3: " in message
        assert not storage.done_shards(tmp_path / "out")
        return message

    def changed(tag, **fields):
        row = json.loads(good)
        row["rstar"][tag] = {**row["rstar"]["0.1"], **fields}
        return json.dumps(row)

    assert "not JSON" in fault(good[:-1])
    assert "not JSON" in fault("\\x")
    assert 'expected an object with "question"' in fault("[]")
    assert 'expected an object with "question"' in fault('{"question": "q"}')
    assert 'expected a root, "0"' in fault('{"question": "q", "rstar": {}}')
    assert "node 0.2.1: its parent is not there" in fault(changed("0.2.1"))
    assert "expected tags" in fault(changed("0.x"))
    assert 'node 0.1: expected text under "text", got 1' in fault(changed("0.1", text=1))
    assert 'node 0.1: expected a number under "q_value", got nan' in fault(changed("0.1", q_value=float("nan")))
    assert 'expected a number under "value"' in fault(changed("0.1", value=10**400))
    assert 'expected a count under "visit_count"' in fault(changed("0.1", visit_count=-1))
    assert "node 0: expected an object" in fault('{"question": "q", "rstar": {"0": 1}}')
    for source, target, message in [
        ("nothing", "out", "no such file or folder"),
        (".", "out", ""),
        ("empty", "out", "expected a folder of shards that are done, or one of JSONL files"),
        ("trees", "empty", "is a folder, expected the name of a JSONL file"),
        ("good.jsonl", "trees", "holds shards already"),
        ("blank.jsonl", "out", "blank.jsonl: empty"),
    ]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "good.jsonl").write_text(good)
        (tmp_path / "blank.jsonl").write_text("\n")
        write_shard(tmp_path / "trees", 0, 1, [small_tree()])
        status, line = convert(capsys, tmp_path / source, tmp_path / target)
        assert status == 2 and message in line
