"""Shards of records: what has a marker is whole, at every moment; thousands of files, few of them open."""

import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading

import pytest

from rstar_jax import files
from rstar_jax.files import objects, shards

from . import crash
from .bucket import Bucket


def path_of(folder, shard, total):
    return files.shard_path(folder, shard, total)


def contents(shard, size=40):
    return [f"shard {shard}, record {i}".encode() for i in range(size)]


def test_records_come_back_by_index_and_in_order(folder):
    for shard in (2, 0, 1):
        files.write_shard(path_of(folder, shard, 3), contents(shard, 0 if shard == 1 else 40))
    assert [path.name for path in files.done_shards(folder)] == [
        f"shard-0000{i}-of-00003.array_record" for i in range(3)
    ]
    everything = contents(0) + contents(2)
    with files.Records(files.done_shards(folder)) as records:
        assert len(records) == 80 and list(records) == everything
        assert records[0] == everything[0] and records[40] == everything[40] and records[-1] == everything[-1]
        order = random.Random(0).choices(range(80), k=50)
        assert records.__getitems__(order) == [everything[i] for i in order]
        with pytest.raises(IndexError):
            records[80]
        copy = pickle.loads(pickle.dumps(records))
        assert copy[79] == everything[79]
        copy.close()
        records.close()
        assert records[1] == everything[1], "may be read after it was closed"
    assert len(files.Records([])) == 0 and list(files.Records([])) == []


def test_killed_at_any_moment_a_shard_is_old_new_or_not_done(folder):
    path, old, new, seen = path_of(folder, 0, 1), contents(0), contents(1, 70), set()

    def before():
        files.remove_tree(folder)
        files.write_shard(path, old)

    def job():
        files.write_shard(path, new)

    def after():
        if files.missing_shards(folder, 1):
            seen.add("missing")
        else:
            with files.Records(files.done_shards(folder)) as records:
                found = list(records)
            assert found in (old, new)
            seen.add("old" if found == old else "new")
        job()
        with files.Records(files.done_shards(folder)) as records:
            assert list(records) == new

    assert crash.everywhere(job, "://" in str(folder), before, after) >= 6
    assert seen == {"missing", "old", "new"}


def test_a_shard_that_is_done_twice_is_left_alone(folder):
    files.write_shard(path_of(folder, 0, 1), contents(0))
    files.publish(folder / "description", "")
    Bucket.writes = 0
    if "://" not in str(folder):
        before = {name: os.stat(folder / name).st_ino for name in files.names(folder)}
    files.write_shard(path_of(folder, 0, 1), contents(0), voids=[folder / "description"])
    assert Bucket.writes == 0 and files.exists(folder / "description")
    if "://" not in str(folder):
        assert {name: os.stat(folder / name).st_ino for name in files.names(folder)} == before
    files.remove(path_of(folder, 0, 1))  # somebody's hand
    files.write_shard(path_of(folder, 0, 1), contents(0), voids=[folder / "description"])
    assert files.exists(path_of(folder, 0, 1)) and not files.exists(folder / "description")


def test_shards_that_are_open_side_by_side(folder):
    with files.writing_shard(path_of(folder, 0, 2)) as first:
        with files.writing_shard(path_of(folder, 1, 2), noun="trees") as second:
            for _ in range(20):
                first.write(b"a")
                second.write(b"b")
            second.marker["easy"] = ["p1"]
            assert files.missing_shards(folder, 2) == [0, 1]
        assert files.missing_shards(folder, 2) == [0]
    assert files.missing_shards(folder, 2) == []
    marker = json.loads(files.markers(folder, ".done")["shard-00001-of-00002.done"])
    assert marker.pop("digest") and marker == {"trees": 20, "easy": ["p1"], "bytes": files.size(path_of(folder, 1, 2))}


def test_a_shard_whose_work_fails_leaves_nothing(folder):
    with pytest.raises(KeyError), files.writing_shard(path_of(folder, 0, 1)) as shard:
        shard.write(b"a")
        raise KeyError
    assert files.names(folder) == []


def test_faults_are_one_line_that_names_the_file(folder):
    path = path_of(folder, 0, 1)

    def fault(kind=ValueError):
        with pytest.raises(kind) as raised, files.Records([path]) as records:
            list(records)
        assert "\n" not in str(raised.value) and "shard-00000-of-00001" in str(raised.value)
        return str(raised.value)

    assert "is not done" in fault(FileNotFoundError)
    files.write_shard(path, contents(0))
    marker = files.read(shards.marker_path(path))
    files.publish(shards.marker_path(path), marker.replace(b'"records": 40', b'"records": 41'))
    assert "holds 40 records, its marker says 41" in fault()
    files.publish(shards.marker_path(path), b"[]")
    assert 'expected {"records", ...}' in fault()
    files.publish(shards.marker_path(path), marker)
    files.publish(path, bytes(70_000))
    fault()
    with pytest.raises(ValueError, match=r"shard must lie in \[0, 2\), got 2"):
        path_of(folder, 2, 2)


def test_threads_read_one_after_another(folder):
    for shard in range(8):
        files.write_shard(path_of(folder, shard, 8), contents(shard))
    everything = [record for shard in range(8) for record in contents(shard)]
    wrong = []
    with files.Records(files.done_shards(folder), open_files=2) as records:

        def read(seed):
            order = random.Random(seed)
            for _ in range(100):
                index = order.randrange(320)
                if records[index] != everything[index]:
                    wrong.append(index)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and len(records._readers) <= 2


def test_copies_of_remote_shards_are_bounded_and_leave_nothing(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for shard in range(6):
        files.write_shard(path_of(bucket, shard, 6), contents(shard))
    size = files.size(path_of(bucket, 0, 6))
    local = tmp_path / f"rstar_{os.getuid()}"
    with files.Records(files.done_shards(bucket), cache_bytes=2 * size) as records:
        for _ in range(2):
            for index in range(0, 240, 7):
                assert records[index] == contents(index // 40)[index % 40]
                assert len(records._readers) <= 2 and os.listdir(local) == []
    assert not records._readers
    with files.Records(files.done_shards(bucket)) as records:
        Bucket.requests.clear()
        assert len(list(records)) == len(list(records)) == 240
        assert len(Bucket.requests) == 6, "each was copied once"
    with files.Records(files.done_shards(bucket), cache_bytes=1) as records:
        assert len(list(records)) == 240


MANY = """
import random, resource, sys
from rstar_jax import files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
with files.Records(files.done_shards(sys.argv[1])) as records:
    assert len(records) == 6000
    assert sum(record == b"record" for record in records) == 6000
    for _ in range(500):
        assert records[random.randrange(6000)] == b"record"
"""


def test_three_thousand_shards_and_256_files(tmp_path):
    """The limit of a login shell on some systems; all shards are one file here, under its many names."""
    first = files.write_shard(path_of(tmp_path, 0, 3000), [b"record"] * 2)
    for shard in range(1, 3000):
        path = path_of(tmp_path, shard, 3000)
        os.link(first, path)
        os.link(shards.marker_path(first), shards.marker_path(path))
    subprocess.run([sys.executable, "-c", MANY, str(tmp_path)], check=True)


def test_shards_of_another_total_are_refused(folder):
    files.write_shard(path_of(folder, 0, 1), [])
    files.write_shard(path_of(folder, 0, 2), [])
    files.write_shard(files.shard_path(folder, 0, 3, name="train"), [])
    with pytest.raises(ValueError, match="different totals"):
        files.done_shards(folder)
    assert len(files.done_shards(folder, "train")) == 1


def test_only_the_named_faults_of_the_writer_are_translated(tmp_path):
    with pytest.raises(OSError, match="No space left on device: a") as raised, shards._disk_faults("a"):
        raise RuntimeError("write() failed: No space left on device; writing /tmp/a")
    assert raised.value.errno == 28
    with pytest.raises(OSError) as raised, shards._disk_faults("a"):
        raise RuntimeError("what?")
    assert raised.value.errno == 5 and objects.names(tmp_path) == []
