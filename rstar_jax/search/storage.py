"""Searched trees on disk, shard by shard: array_record files of one JSON record a tree, each with a done-marker.

A shard is written under another name, then renamed; its marker, with the counts, comes last. What has no marker was
never written: a search that was killed goes on with `missing_shards`. Folders may be local or remote (`gs://`).
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from rstar_jax.search.tree import Tree

_OPTIONS = "group_size:1"


def shard_path(folder: epath.PathLike, shard: int, total: int) -> epath.Path:
    """The file of one shard."""
    if not 0 <= shard < total:
        raise ValueError(f"shard must lie in [0, {total}), got {shard}")
    return epath.Path(folder) / f"shard-{shard:05d}-of-{total:05d}.array_record"


def write_shard(folder: epath.PathLike, shard: int, total: int, trees: Sequence[Tree]) -> epath.Path:
    """Writes one shard and then its marker; returns the shard's path. An old shard of the same name is replaced."""
    path = shard_path(folder, shard, total)
    path.parent.mkdir(parents=True, exist_ok=True)
    _marker(path).unlink(missing_ok=True)
    # The writer knows local files only.
    with tempfile.TemporaryDirectory() as local:
        local_path = os.path.join(local, path.name)
        writer = ArrayRecordWriter(local_path, _OPTIONS)
        for tree in trees:
            writer.write(json.dumps(tree.to_dict(), separators=(",", ":")).encode())
        writer.close()
        _publish(path, epath.Path(local_path).read_bytes())
    counts = {"trees": len(trees), "nodes": sum(tree.size for tree in trees)}
    _publish(_marker(path), json.dumps(counts).encode())
    return path


def read_shard(folder: epath.PathLike, shard: int, total: int) -> list[Tree]:
    """The trees of one shard. Raises FileNotFoundError if its marker does not stand."""
    return list(_read(shard_path(folder, shard, total)))


def read_trees(folder: epath.PathLike) -> Iterator[Tree]:
    """All trees of the shards that are done, one after another, in order.

    Raises: ValueError if shards of different totals lie in the folder: some problems would be counted twice.
    """
    markers = sorted(epath.Path(folder).glob("shard-*.done"))
    totals = {marker.stem.rpartition("-")[2] for marker in markers}
    if len(totals) > 1:
        raise ValueError(
            f"{folder} holds shards of different totals ({', '.join(sorted(totals))}); remove the old ones"
        )
    for marker in markers:
        yield from _read(marker.with_suffix(".array_record"))


def missing_shards(folder: epath.PathLike, total: int) -> list[int]:
    """The shards that are not done."""
    return [shard for shard in range(total) if not _marker(shard_path(folder, shard, total)).exists()]


def _marker(path: epath.Path) -> epath.Path:
    return path.with_suffix(".done")


def _publish(path: epath.Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _read(path: epath.Path) -> Iterator[Tree]:
    if not _marker(path).exists():
        raise FileNotFoundError(f"{path} is not done: {_marker(path).name} does not stand beside it")
    with tempfile.TemporaryDirectory() as local:
        local_path = os.path.join(local, path.name)
        epath.Path(local_path).write_bytes(path.read_bytes())
        with contextlib.closing(ArrayRecordReader(local_path)) as reader:
            for index in range(reader.num_records()):
                yield Tree.from_dict(json.loads(reader.read([index])[0]))
