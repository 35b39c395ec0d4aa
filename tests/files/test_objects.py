"""Whole files: there or not there, whatever happens and wherever they lie."""

import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from etils import epath

from rstar_jax import files

from . import crash
from .bucket import Bucket


def test_published_files_are_read_listed_and_removed(folder):
    assert files.names(folder) == [] and not files.exists(folder / "a")
    files.publish(folder / "deeper/a.json", "é")
    files.publish(folder / "b", b"\0")
    files.publish(folder / "b", b"\0\1")
    assert files.read(folder / "deeper/a.json") == "é".encode() and files.read(folder / "b") == b"\0\1"
    assert files.names(folder) == ["b", "deeper"] and files.names(folder / "deeper") == ["a.json"]
    assert files.size(folder / "b") == 2 and files.exists(folder / "deeper") and files.size(folder / "c") is None
    assert files.read_all([folder / "b", folder / "c"]) == {str(folder / "b"): b"\0\1"}
    with pytest.raises(FileNotFoundError):
        files.read(folder / "c")
    files.remove(folder / "b")
    files.remove(folder / "b")
    assert files.names(folder) == ["deeper"]
    files.remove_tree(folder)
    files.remove_tree(folder)
    assert files.names(folder) == []


def test_create_is_for_the_first(folder):
    assert files.create(folder / "a", "one")
    assert not files.create(folder / "a", "two")
    assert files.read(folder / "a") == b"one" and files.names(folder) == ["a"]


def test_create_on_a_disk_without_hard_links(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert files.create(tmp_path / "a", "one") and not files.create(tmp_path / "a", "two")
    assert files.names(tmp_path) == ["a"] and files.read(tmp_path / "a") == b"one"


def test_create_whose_answer_was_lost(bucket, monkeypatch):
    """A client that sends a request again finds its own object."""
    put = Bucket._put

    def twice(self, *arguments):
        put(self, *arguments)
        put(self, *arguments)

    monkeypatch.setattr(Bucket, "_put", twice)
    assert files.create(bucket / "a", "one")


def test_staged_files_appear_at_the_end(folder):
    with files.staged(folder / "a") as local:
        pathlib.Path(local).write_text("lines")
        assert files.names(folder) == []
    assert files.read(folder / "a") == b"lines"
    with pytest.raises(KeyError), files.staged(folder / "a") as local:
        pathlib.Path(local).write_text("half a")
        raise KeyError
    assert files.read(folder / "a") == b"lines" and not os.path.exists(local)


def test_a_crash_leaves_the_old_file_or_the_new(folder):
    path, seen = folder / "a", set()

    def after():
        assert (content := files.read(path)) in (b"old", b"new")
        assert files.names(folder) == ["a"]
        seen.add(content)

    def job():
        files.publish(path, "new")

    points = crash.everywhere(job, "://" in str(folder), lambda: files.publish(path, "old"), after)
    assert points >= 2 and seen == {b"old", b"new"}


def test_a_folder_on_the_disk_is_removed_at_once(tmp_path):
    folder = tmp_path / "model"

    def before():
        for name in "abc":
            files.publish(folder / name, name)

    crash.everywhere(
        lambda: files.remove_tree(folder), False, before, lambda: files.names(folder) in ([], ["a", "b", "c"]) or 1 / 0
    )
    assert files.names(tmp_path) == []


def test_a_folder_in_a_bucket_loses_first_what_says_that_it_is_whole(bucket):
    """Of two models, a shard and a checkpoint: wherever the removal ends, what still has its marker is whole."""
    wholes = {
        "a/config.json": ("a/model.safetensors", "a/tokenizer.json"),
        "z/config.json": ("z/zeros.safetensors",),
        "trees/shard.done": ("trees/shard.array_record",),
        "training/2/commit_success.txt": ("training/2/a/d/0", "training/2/_METADATA"),
    }
    beside = bucket.parent / "run_2/config.json"

    def before():
        for marker, others in wholes.items():
            for name in (*others, marker):
                files.publish(bucket / name, name)
        files.publish(beside, "")

    def after():
        for marker, others in wholes.items():
            if files.exists(bucket / marker):
                assert all(files.exists(bucket / name) for name in others), marker
        assert files.exists(beside)

    assert crash.everywhere(lambda: files.remove_tree(bucket), True, before, after) > 10
    assert files.names(bucket) == []


@pytest.mark.parametrize("mode", ["status", "report", "evolve"])
def test_a_bucket_without_the_package_for_it_is_one_line(mode):
    code = "import sys; sys.modules['gcsfs'] = None; from rstar_jax.main import main; sys.exit(main(sys.argv[1:]))"
    ended = subprocess.run(
        [sys.executable, "-c", code, mode, "--run_dir=gs://bucket/run"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    told = "rstar: gs://bucket/run.*: `pip install 'rstar_jax.gcs.'` brings what gs:// needs"
    assert re.fullmatch(told, ended.stderr.splitlines()[-1]) and "Traceback" not in ended.stderr


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = f"""if True:
        from rstar_jax import files
        with files.staged({str(tmp_path / "a")!r}) as local:
            open(local, "w").write("half")
            print("half", flush=True)
            input()
    """
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout.readline() == b"half\n"
        assert len(os.listdir(tmp_path)) == 1 and files.names(tmp_path) == []
        files.objects._sweep.cache_clear()
        files.publish(tmp_path / "b", "")
        assert len(os.listdir(tmp_path)) == 2, "its process runs"
        killed.kill()
    files.objects._sweep.cache_clear()
    files.publish(tmp_path / "a", "whole")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_listings_are_never_old(bucket):
    """Epath's own calls included: gcsfs keeps listings, and answers `exists` out of them."""
    kept = fsspec.filesystem("gs", use_listings_cache=True)
    files.publish(bucket / "a.done", "a")
    path = epath.Path(bucket)
    assert kept.ls(str(bucket), detail=False) == ["bucket/run/a.done"] and len(list(path.iterdir())) == 1
    command = "from tests.files import bucket; from rstar_jax import files; files.publish({!r}, 'b')"
    subprocess.run([sys.executable, "-c", command.format(str(bucket / "b.done"))], check=True)
    assert not kept.exists(str(bucket / "b.done")), "the fake keeps listings as gcsfs does"
    assert files.exists(bucket / "b.done") and (path / "b.done").exists() and len(list(path.iterdir())) == 2
    assert files.names(bucket) == ["a.done", "b.done"]


def test_markers_come_in_one_listing(folder):
    for i in range(40):
        files.publish(folder / f"{i:02d}.done", str(i))
    files.publish(folder / "other", "")
    Bucket.requests.clear()
    found = files.markers(folder, ".done")
    assert found == {f"{i:02d}.done": str(i).encode() for i in range(40)}
    if "://" in str(folder):
        assert sum(request.startswith("list") for request in Bucket.requests) == 1
        assert len(Bucket.requests) == 41


def test_markers_of_a_store_whose_listings_lag_behind(bucket, monkeypatch):
    files.publish(bucket / "old.done", "")
    files.publish(bucket / "removed.done", "")
    time.sleep(0.3)
    monkeypatch.setenv("BUCKET_LAG", "0.3")
    files.remove(bucket / "removed.done")
    files.publish(bucket / "new.done", "new")
    assert files.names(bucket) == ["old.done", "removed.done"]
    assert files.markers(bucket, ".done") == {"old.done": b""}
    assert files.markers(bucket, ".done", also=["new.done", "never.done"]) == {"old.done": b"", "new.done": b"new"}


def test_a_bucket_out_of_reach_is_not_an_empty_one(bucket, monkeypatch):
    files.publish(bucket / "a", "")
    monkeypatch.setattr(Bucket, "is_out_of_reach", True)
    for ask in (files.exists, files.names, files.read, files.remove, lambda path: files.markers(path, ".done")):
        with pytest.raises(ConnectionError):
            ask(bucket / "a")


FULL = """
import errno, os, pathlib, sys
from rstar_jax import files
folder = pathlib.Path(sys.argv[1])
files.publish(folder / "old", "old")
def full(write):
    try:
        write()
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.EFBIG), error
    else:
        raise AssertionError("there was room")
    assert os.listdir(folder) == ["old"] and files.read(folder / "old") == b"old", os.listdir(folder)
full(lambda: files.publish(folder / "old", bytes(4 << 20)))
full(lambda: files.create(folder / "new", bytes(4 << 20)))
full(lambda: files.write_shard(files.shard_path(folder, 0, 1), (os.urandom(1000) for _ in range(4000))))
"""


def test_a_full_disk(tmp_path):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True, preexec_fn=limited)


def test_a_disk_of_one_megabyte(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
