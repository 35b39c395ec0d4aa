"""Searched trees on disk, shard by shard: array_record files of one record a tree, each with a done-marker.

A shard is written under another name, then renamed; its marker, with the counts, comes last. What has no marker was
never written: a search that was killed goes on with `missing_shards`. Folders may be local or remote (`gs://`).

Records are compressed in groups, because trees of one run have much in common; to read one, its group is read. A file
is a multiple of 64 KiB, so that many small shards cost more than few large ones.
"""

import bisect
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from rstar_jax.search import record
from rstar_jax.search.tree import Tree

_GROUP = 16
_OPTIONS = f"group_size:{_GROUP},brotli:6"  # among the options: within a byte a node of the smallest, ten times as fast


def shard_path(folder: epath.PathLike, shard: int, total: int) -> epath.Path:
    """The file of one shard."""
    if not 0 <= shard < total:
        raise ValueError(f"shard must lie in [0, {total}), got {shard}")
    return epath.Path(folder) / f"shard-{shard:05d}-of-{total:05d}.array_record"


def write_shard(folder: epath.PathLike, shard: int, total: int, trees: Iterable[Tree]) -> epath.Path:
    """Writes one shard and then its marker; returns the shard's path. An old shard of the same name is replaced."""
    path = shard_path(folder, shard, total)
    path.parent.mkdir(parents=True, exist_ok=True)
    _marker(path).unlink(missing_ok=True)
    counts = {"trees": 0, "nodes": 0}
    # The writer knows local files only.
    with tempfile.TemporaryDirectory() as local:
        local_path = os.path.join(local, path.name)
        with contextlib.closing(ArrayRecordWriter(local_path, _OPTIONS)) as writer:
            for tree in trees:
                writer.write(record.pack(tree))
                counts["trees"] += 1
                counts["nodes"] += tree.size
        _publish(path, epath.Path(local_path).read_bytes())
    _publish(_marker(path), json.dumps(counts).encode())
    return path


def missing_shards(folder: epath.PathLike, total: int) -> list[int]:
    """The shards that are not done."""
    return [shard for shard in range(total) if not _marker(shard_path(folder, shard, total)).exists()]


def done_shards(folder: epath.PathLike) -> list[epath.Path]:
    """The files of the shards that are done, in order.

    Raises: ValueError if shards of different totals lie in the folder: some problems would be counted twice.
    """
    markers = sorted(epath.Path(folder).glob("shard-*.done"))
    totals = {marker.stem.rpartition("-")[2] for marker in markers}
    if len(totals) > 1:
        raise ValueError(
            f"{folder} holds shards of different totals ({', '.join(sorted(totals))}); remove the old ones"
        )
    return [marker.with_suffix(".array_record") for marker in markers]


def read_shard(folder: epath.PathLike, shard: int, total: int) -> list[Tree]:
    """The trees of one shard. Raises FileNotFoundError if its marker does not stand."""
    with Trees([shard_path(folder, shard, total)]) as trees:
        return list(trees)


def read_trees(folder: epath.PathLike) -> Iterator[Tree]:
    """All trees of the shards that are done, one after another, in order. Raises as `done_shards` and `Trees` do."""
    with Trees(done_shards(folder)) as trees:
        yield from trees


class Trees(Sequence[Tree]):
    """The trees of some shards, read when they are asked for; how many there are is read from the markers.

    A shard is opened when its first tree is asked for and stays open until `close`.
    Raises: FileNotFoundError if a shard's marker does not stand. ValueError, in one line that names the file, if what
    lies there is no shard of trees or of another format.
    """

    def __init__(self, paths: Sequence[epath.Path]):
        self._paths = list(paths)
        self._ends = list(itertools.accumulate(_count(path) for path in self._paths))
        self._readers: dict[int, ArrayRecordReader] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Trees":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the shards that are open."""
        self._readers.clear()
        self._open.close()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Tree:
        index = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, index)
        return self._read(shard, range(index, index + 1))[0]

    def __iter__(self) -> Iterator[Tree]:
        start = 0
        for shard, end in enumerate(self._ends):
            for first in range(start, end, _GROUP):  # a whole group costs what one of its trees would
                yield from self._read(shard, range(first, min(first + _GROUP, end)))
            start = end

    def _read(self, shard: int, indices: range) -> list[Tree]:
        path, start = self._paths[shard], self._ends[shard - 1] if shard else 0
        with _naming(path):
            records = self._reader(shard).read([index - start for index in indices])
        trees = []
        for index, content in zip(indices, records, strict=True):
            with _naming(f"{path}, tree {index - start}"):
                trees.append(record.unpack(content))
        return trees

    def _reader(self, shard: int) -> ArrayRecordReader:
        if shard not in self._readers:
            path, expected = self._paths[shard], self._ends[shard] - (self._ends[shard - 1] if shard else 0)
            local_path = os.fspath(path)
            if not os.path.exists(local_path):  # a remote one: the reader knows local files only
                local = self._open.enter_context(tempfile.TemporaryDirectory())
                local_path = os.path.join(local, path.name)
                epath.Path(local_path).write_bytes(path.read_bytes())
            reader = ArrayRecordReader(local_path)
            if reader.num_records() != expected:
                raise ValueError(f"holds {reader.num_records()} trees, its marker says {expected}")
            self._readers[shard] = reader
            self._open.callback(reader.close)
        return self._readers[shard]


@contextlib.contextmanager
def _naming(what: epath.PathLike) -> Iterator[None]:
    """Lets faults of what lies in a file name it; array_record calls its own RuntimeError."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{what}: {error}") from error


def _marker(path: epath.Path) -> epath.Path:
    return path.with_suffix(".done")


def _count(path: epath.Path) -> int:
    """How many trees a shard holds, by its marker."""
    marker = _marker(path)
    if not marker.exists():
        raise FileNotFoundError(f"{path} is not done: {marker.name} does not stand beside it")
    try:
        return int(json.loads(marker.read_text())["trees"])
    except (ValueError, TypeError, KeyError):
        raise ValueError(f'{marker}: expected {{"trees", "nodes"}}, the counts of its shard') from None


def _publish(path: epath.Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
