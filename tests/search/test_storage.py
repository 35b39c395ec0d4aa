"""Shards: what was written comes back; what was not finished does not count."""

import json

import pytest

from rstar_jax.search import missing_shards, read_shard, read_trees, search, storage, write_shard

from . import scripted


@pytest.fixture(scope="module")
def trees():
    return search(
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
    assert marker == {"trees": 3, "nodes": sum(tree.size for tree in trees[:3])}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shard-00000-of-00002.array_record",
        "shard-00000-of-00002.done",
        "shard-00001-of-00002.array_record",
        "shard-00001-of-00002.done",
    ]


def test_a_killed_search_goes_on(tmp_path, trees, monkeypatch):
    assert missing_shards(tmp_path / "new", 3) == [0, 1, 2]
    write_shard(tmp_path, 0, 3, trees[:2])

    def killed(path, content, publish=storage._publish):
        if path.suffix == ".done":
            raise KeyboardInterrupt
        publish(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_publish", killed)
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
