"""Shards: what was written comes back; what was not finished does not count."""

import gc
import json
import struct
import weakref

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rstar_jax.files import objects
from rstar_jax.problems.problem import Problem
from rstar_jax.search import (
    Ends,
    Kind,
    SchedulerConfig,
    ShardsWriter,
    Tree,
    all_ends,
    missing_shards,
    read_shard,
    read_trees,
    record,
    search,
    search_all,
    shard_ends,
    storage,
    write_shard,
)
from rstar_jax.search.tree import ROOT_INDEX, Node

from . import scripted


@pytest.fixture(scope="module")
def trees():
    return search_all(
        scripted.problems(5),
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
    )


def records(trees):
    return [tree.to_dict() for tree in trees]


def test_round_trip_in_order(tmp_path, trees):
    write_shard(tmp_path, 1, 2, trees[3:])
    write_shard(tmp_path, 0, 2, trees[:3])
    assert records(read_shard(tmp_path, 0, 2)) == records(trees[:3])
    assert records(read_trees(tmp_path)) == records(trees)
    marker = json.loads((tmp_path / "shard-00000-of-00002.done").read_text())
    assert marker["trees"] == 3 and marker["nodes"] == sum(tree.size for tree in trees[:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shard-00000-of-00002.array_record",
        "shard-00000-of-00002.done",
        "shard-00001-of-00002.array_record",
        "shard-00001-of-00002.done",
    ]


def test_a_killed_search_goes_on(tmp_path, trees, monkeypatch):
    assert missing_shards(tmp_path / "new", 3) == [0, 1, 2]
    write_shard(tmp_path, 0, 3, trees[:2])

    def killed(path, content, publish=objects.publish):
        if path.suffix == ".done":
            raise KeyboardInterrupt
        publish(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            write_shard(tmp_path, 1, 3, trees[2:4])
    assert missing_shards(tmp_path, 3) == [1, 2]
    assert records(read_trees(tmp_path)) == records(trees[:2]), "a shard without its marker is not there"
    with pytest.raises(FileNotFoundError, match="is not done"):
        read_shard(tmp_path, 1, 3)
    write_shard(tmp_path, 1, 3, trees[2:4])
    write_shard(tmp_path, 2, 3, trees[4:])
    assert missing_shards(tmp_path, 3) == []
    assert records(read_trees(tmp_path)) == records(trees)


def test_an_empty_shard(tmp_path):
    write_shard(tmp_path, 0, 1, [])
    assert read_shard(tmp_path, 0, 1) == []


def test_mixed_totals_are_refused(tmp_path, trees):
    write_shard(tmp_path, 0, 1, trees[:1])
    write_shard(tmp_path, 0, 2, trees[:1])
    with pytest.raises(ValueError, match="different totals"):
        list(read_trees(tmp_path))
    with pytest.raises(ValueError, match="must lie in"):
        storage.shard_path(tmp_path, 2, 2)


def awkward_tree():
    """Texts that UTF-8 has no place for, numbers that float32 has none for, wide and missing token ids."""
    problem = Problem(
        id="\ud800", question="1 + 1?\n\u2028", answers=("2", "\udfff", ""), level="4.5", solution="\u2028"
    )
    tree = Tree(problem, key=2**32 - 1, prompt="", prompt_tokens=())
    values = (0.1, -0.0, 1e300, 5e-324, float("inf"), -1.0, float(np.float32(0.1)))
    for i, value in enumerate(values):
        node = Node(text="\udfff \0 é" * i, tokens=(0, 255, 256, 151_935)[:i], kind=Kind.STEP, logprob=value)
        node.answer, node.output = (None, "", "2")[i % 3], "\n"
        index = tree.add(i // 2, node)
        tree.update(index, value)
    tree.visits[ROOT_INDEX] = 2**31 - 1
    return tree


def test_a_tree_comes_back_to_the_last_bit():
    tree = awkward_tree()
    copy = record.unpack(record.pack(tree))
    assert copy.to_dict() == tree.to_dict()
    for name in ("value", "value_sum", "logprob"):
        bits = [struct.pack("d", number) for number in getattr(tree, name)]
        assert [struct.pack("d", number) for number in getattr(copy, name)] == bits, name
    assert copy.children(ROOT_INDEX) == tree.children(ROOT_INDEX)
    copy.add(3, Node(text="more", tokens=(1,), kind=Kind.STEP))


def test_a_shard_is_a_fraction_of_its_json(tmp_path):
    many = search_all(
        scripted.problems(150),
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
    )
    path = write_shard(tmp_path, 0, 1, many)
    assert len(path.read_bytes()) < sum(len(json.dumps(tree.to_dict())) for tree in many) / 5


def test_trees_are_read_when_asked_for(tmp_path, trees, monkeypatch):
    many = (trees * 9)[:41]  # more than a group
    write_shard(tmp_path, 0, 2, many[:30])
    write_shard(tmp_path, 1, 2, many[30:])
    unpacked = []
    monkeypatch.setattr(record, "unpack", lambda content, unpack=record.unpack: unpacked.append(1) or unpack(content))
    with storage.Trees(storage.done_shards(tmp_path)) as stored:
        assert len(stored) == 41 and not unpacked
        for index in (0, 15, 16, 29, 30, 40, -1):
            assert stored[index].to_dict() == many[index].to_dict()
        assert len(unpacked) == 7
        with pytest.raises(IndexError):
            stored[41]
        assert records(stored) == records(many)
    assert len(storage.Trees([])) == 0


def raw_shard(folder, *contents):
    path = storage.shard_path(folder, 0, 1)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content in contents:
        writer.write(content)
    writer.close()
    path.with_suffix(".done").write_text(json.dumps({"trees": len(contents), "nodes": 0}))


def test_what_is_no_shard_is_named_in_one_line(tmp_path, trees):
    def fault():
        with pytest.raises(ValueError) as raised:
            list(read_trees(tmp_path))
        assert "\n" not in str(raised.value) and "shard-00000-of-00001" in str(raised.value)
        return str(raised.value)

    packed = record.pack(trees[0])
    raw_shard(tmp_path, packed, packed.replace(b'"format":1', b'"format":0'))
    assert "tree 1: expected a tree in format 1, got format 0" in fault()
    raw_shard(tmp_path, json.dumps(trees[0].to_dict()).encode())
    assert "tree 0: expected a tree in format 1, got a record of something else" in fault()
    raw_shard(tmp_path, packed[:-1])
    assert "breaks off" in fault()
    raw_shard(tmp_path, packed + b"x")
    assert "goes on" in fault()
    path = write_shard(tmp_path, 0, 1, trees)
    path.with_suffix(".done").write_text('{"trees": 4, "nodes": 0}')
    assert "holds 5 trees, its marker says 4" in fault()
    path.with_suffix(".done").write_text("")
    assert "expected" in fault()
    path.with_suffix(".done").write_text('{"trees": 5, "nodes": 0}')
    content = path.read_bytes()
    for broken in (b"", content[:70_000], b"x" * len(content)):
        path.write_bytes(broken)
        fault()


def test_a_marker_says_how_the_trees_of_each_problem_ended(tmp_path, trees):
    problems = scripted.problems(5)
    more = search_all(
        problems,
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
        trajectories=2,
        first_trajectory=1,
    )
    keys = {tree.key for tree in (*trees, *more)}
    assert len(keys) == 15, "every tree of a round has a seed of its own"
    write_shard(tmp_path, 0, 2, more[:6])
    write_shard(tmp_path, 1, 2, more[6:])
    found = all_ends(tmp_path, 2)
    assert found == shard_ends(tmp_path, 0, 2) | shard_ends(tmp_path, 1, 2) and list(found) == [p.id for p in problems]
    for problem in problems:
        own = [tree for tree in more if tree.problem.id == problem.id]
        grades = [tree.correct[leaf] for tree in own for leaf in tree.answers()]
        tokens = sum(tree.sampled_tokens for tree in own)
        assert found[problem.id] == Ends(grades.count(1), grades.count(0), grades.count(-1), tokens)
    (tmp_path / "shard-00000-of-00002.done").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 shards are not done"):
        all_ends(tmp_path, 2)
    (tmp_path / "shard-00000-of-00002.done").write_text("{}")
    with pytest.raises(ValueError, match='shard-00000-of-00002.done: expected a marker with "ends"'):
        all_ends(tmp_path, 2)


@pytest.mark.parametrize(
    ("ends", "difficulty"),
    [((3, 0, 0), "easy"), ((3, 1, 0), "medium"), ((3, 0, 1), "medium"), ((0, 2, 1), "hard"), ((0, 0, 0), "hard")],
)
def test_difficulty(ends, difficulty):
    assert Ends(*ends).difficulty == difficulty
    assert (Ends(*ends) + Ends(tokens=7)) == Ends(*ends, tokens=7)


def test_shards_are_published_with_their_last_tree_whatever_the_order(tmp_path, trees):
    problems = [tree.problem for tree in trees]
    shards = [[0, 2, 4], [1, 3]]
    for folder, order in (("a", range(5)), ("b", (4, 3, 0, 2, 1))):
        with ShardsWriter(tmp_path / folder, 3) as writer:
            for shard, own in enumerate(shards):
                writer.begin(shard, [problems[i] for i in own], 1)
            writer.begin(2, [], 1)
            published = [writer.add(trees[i]) for i in order]
            assert [shard for shard in published if shard is not None] == ([1, 0] if folder == "a" else [0, 1])
        assert missing_shards(tmp_path / folder, 3) == []
    assert records(read_shard(tmp_path / "b", 0, 3)) == records([trees[i] for i in shards[0]])
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(RuntimeError, match=r"ended before the trees of shards \[0\] did"):
        with ShardsWriter(tmp_path / "c", 1) as writer:
            writer.begin(0, problems, 1)
            writer.add(trees[0])
            with pytest.raises(ValueError, match="ids of problems occur twice"):
                writer.begin(0, problems[:1], 1)
    with pytest.raises(ValueError, match="ids of problems occur twice"):
        ShardsWriter(tmp_path / "d", 1).begin(0, problems[:1] * 2, 1)
    assert missing_shards(tmp_path / "c", 1) == [0] and not (tmp_path / "c").exists()


def test_no_tree_outlives_its_end_while_its_shard_is_open(tmp_path):
    """What waits for the rest of a shard is bytes: of trees, as Python holds them, no more than searches need."""
    problems, seen = scripted.problems(30), []
    stream = search(
        problems,
        sampler=scripted.Sampler(),
        verifier=scripted.Verifier(),
        grader=scripted.Grader(),
        config=scripted.CONFIG,
        scheduling=SchedulerConfig(in_flight=4),
    )
    with ShardsWriter(tmp_path, 1) as writer:
        writer.begin(0, problems, 1)
        for tree in stream:
            seen.append(weakref.ref(tree))
            writer.add(tree)
            del tree
            gc.collect()
            assert sum(own() is not None for own in seen) <= 2 * 4
    assert len(seen) == 30 and len(read_shard(tmp_path, 0, 1)) == 30
