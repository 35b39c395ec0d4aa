"""Searched trees on disk, shard by shard, as `rstar_jax.files` keeps records: one a tree, a done-marker a shard.

A marker holds {"trees", "nodes"} besides. What has no marker was never written: a search that was killed goes on with
`missing_shards`. Folders may be local or remote (`gs://`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from etils import epath

from rstar_jax import files
from rstar_jax.files import done_shards, missing_shards, shard_path
from rstar_jax.search import record
from rstar_jax.search.tree import Tree

__all__ = ["Trees", "done_shards", "missing_shards", "read_shard", "read_trees", "shard_path", "write_shard", "writing"]

_COMPRESSION = "brotli:6"  # among the options: within a byte a node of the smallest, ten times as fast


class TreeShard:
    """A shard of trees that is being written."""

    def __init__(self, shard: files.Shard):
        self._shard = shard
        self._shard.marker["nodes"] = 0

    def write(self, tree: Tree) -> None:
        """Adds a tree."""
        self._shard.write(record.pack(tree))
        self._shard.marker["nodes"] += tree.size


@contextmanager
def writing(folder: epath.PathLike, shard: int, total: int) -> Iterator[TreeShard]:
    """Gives a shard to write trees to as they end; it is published if nothing went wrong. Several may be open."""
    with files.writing_shard(shard_path(folder, shard, total), noun="trees", compression=_COMPRESSION) as open_shard:
        yield TreeShard(open_shard)


def write_shard(folder: epath.PathLike, shard: int, total: int, trees: Iterable[Tree]) -> epath.Path:
    """Writes one shard and then its marker; returns the shard's path. An old shard of the same name is replaced."""
    with writing(folder, shard, total) as open_shard:
        for tree in trees:
            open_shard.write(tree)
    return shard_path(folder, shard, total)


def read_shard(folder: epath.PathLike, shard: int, total: int) -> list[Tree]:
    """The trees of one shard. Raises FileNotFoundError if its marker does not stand."""
    with Trees([shard_path(folder, shard, total)]) as trees:
        return list(trees)


def read_trees(folder: epath.PathLike) -> Iterator[Tree]:
    """All trees of the shards that are done, one after another, in order. Raises as `done_shards` and `Trees` do."""
    with Trees(done_shards(folder)) as trees:
        yield from trees


class Trees(files.Records[Tree]):
    """The trees of some shards, read when they are asked for; how many there are is read from the markers.

    Raises: FileNotFoundError if a shard's marker does not stand. ValueError, in one line that names the file, if what
    lies there is no shard of trees or of another format.
    """

    def __init__(self, paths: Sequence[epath.PathLike]):
        super().__init__(paths, decode=_unpack, noun="tree")


def _unpack(content: bytes) -> Tree:
    return record.unpack(content)
