"""Searched trees on disk, shard by shard, as `rstar_jax.files` keeps records: one a tree, a done-marker a shard.

A marker holds {"trees", "nodes", "ends"} besides: how the trees of each problem ended, so that who asks how hard a
problem is reads no tree. What has no marker was never written: a search that was killed goes on with `missing_shards`.
Folders may be local or remote (`gs://`).
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from rstar_jax import files
from rstar_jax.files import done_shards, missing_shards, shard_path
from rstar_jax.problems.problem import Problem
from rstar_jax.search import record
from rstar_jax.search.tree import Tree

__all__ = [
    "Ends",
    "ShardsWriter",
    "Trees",
    "all_ends",
    "done_shards",
    "missing_shards",
    "read_shard",
    "read_trees",
    "shard_ends",
    "shard_path",
    "write_shard",
]

_COMPRESSION = "brotli:6"  # among the options: within a byte a node of the smallest, ten times as fast


@dataclasses.dataclass(frozen=True)
class Ends:
    """How the trees of a problem ended: answers that are right, wrong, undecided; and the tokens that were sampled."""

    right: int = 0
    wrong: int = 0
    undecided: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, tree: Tree) -> "Ends":
        """Those of one tree."""
        grades = [int(tree.correct[leaf]) for leaf in tree.answers()]
        right, wrong = grades.count(1), grades.count(0)
        return cls(right, wrong, len(grades) - right - wrong, int(tree.sampled_tokens))

    def __add__(self, other: "Ends") -> "Ends":
        own, more = dataclasses.astuple(self), dataclasses.astuple(other)
        return Ends(*(a + b for a, b in zip(own, more, strict=True)))

    @property
    def difficulty(self) -> str:
        """'easy' if all answers are right, 'hard' if none is, as without an answer, else 'medium' (section 3.4)."""
        if not self.right:
            return "hard"
        return "medium" if self.wrong or self.undecided else "easy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Packed:
    """A tree as a shard keeps it, and what the shard's marker says of it."""

    problem: str
    key: int
    nodes: int
    ends: Ends
    record: bytes

    @classmethod
    def of(cls, tree: Tree) -> "_Packed":
        return cls(problem=tree.problem.id, key=tree.key, nodes=tree.size, ends=Ends.of(tree), record=record.pack(tree))


def write_shard(folder: epath.PathLike, shard: int, total: int, trees: Iterable[Tree]) -> epath.Path:
    """Writes one shard and then its marker; returns the shard's path. An old shard of the same name is replaced."""
    return _write(shard_path(folder, shard, total), map(_Packed.of, trees))


def _write(path: epath.Path, trees: Iterable[_Packed]) -> epath.Path:
    with files.writing_shard(path, noun="trees", compression=_COMPRESSION) as open_shard:
        nodes, ends = 0, {}
        for tree in trees:
            open_shard.write(tree.record)
            nodes += tree.nodes
            ends[tree.problem] = ends.get(tree.problem, Ends()) + tree.ends
        open_shard.marker |= {"nodes": nodes, "ends": {name: dataclasses.astuple(own) for name, own in ends.items()}}
    return path


class ShardsWriter:
    """Writes the trees of several shards at the same time, as they end; each shard is published with its last tree.

    A shard's trees are written in the order of its problems, so that its bytes do not depend on which ended first;
    those of open shards are held as the bytes they will be. What is not whole when an error ends the block is not
    written.
    """

    def __init__(self, folder: epath.PathLike, total: int):
        self._folder, self._total = folder, total
        self._open: dict[int, _OpenShard] = {}
        self._shard_of: dict[str, int] = {}

    def __enter__(self) -> "ShardsWriter":
        return self

    def __exit__(self, kind: type | None, *exception) -> None:
        if kind is None and self._open:
            raise RuntimeError(f"{self._folder}: the search ended before the trees of shards {sorted(self._open)} did")

    def begin(self, shard: int, problems: Sequence[Problem], trees: int) -> None:
        """Opens a shard of so many trees of each problem; one without problems is published at once.

        Raises: ValueError where a problem comes twice, in it or in another open shard.
        """
        ids = [problem.id for problem in problems]
        if len(set(ids)) < len(ids) or self._shard_of.keys() & set(ids):
            raise ValueError(f"{shard_path(self._folder, shard, self._total)}: ids of problems occur twice")
        own = _OpenShard(ids, trees)
        if own.is_whole:
            write_shard(self._folder, shard, self._total, ())
            return
        self._open[shard] = own
        self._shard_of.update((problem.id, shard) for problem in problems)

    def add(self, tree: Tree) -> int | None:
        """Takes a tree of an open shard; returns the shard if it was the last one, for then it is published.

        Raises: KeyError for a tree of no problem of an open shard.
        """
        shard = self._shard_of[tree.problem.id]
        own = self._open[shard]
        own.add(_Packed.of(tree))  # now, a little work a tree, not all of it while the search waits for the last
        if not own.is_whole:
            return None
        _write(shard_path(self._folder, shard, self._total), own.ordered())
        del self._open[shard]
        for problem in own.problems:
            del self._shard_of[problem]
        return shard


class _OpenShard:
    """The trees of a shard, until all are there."""

    def __init__(self, problems: Sequence[str], trees: int):
        self.problems, self._left = problems, len(problems) * trees
        self._found: dict[str, list[_Packed]] = {problem: [] for problem in problems}

    @property
    def is_whole(self) -> bool:
        return self._left == 0

    def add(self, tree: _Packed) -> None:
        self._found[tree.problem].append(tree)
        self._left -= 1

    def ordered(self) -> Iterator[_Packed]:
        for problem in self.problems:
            yield from sorted(self._found[problem], key=lambda tree: tree.key)


def shard_ends(folder: epath.PathLike, shard: int, total: int) -> dict[str, Ends]:
    """How the trees of each problem of a shard ended. Raises FileNotFoundError if its marker does not stand."""
    path = files.marker_path(shard_path(folder, shard, total))
    return _ends(files.read(path), str(path))


def all_ends(folder: epath.PathLike, total: int) -> dict[str, Ends]:
    """The same of all shards. Raises FileNotFoundError if one is not done."""
    paths = [files.marker_path(shard_path(folder, shard, total)) for shard in range(total)]
    found = files.markers(folder, ".done", also=[path.name for path in paths])
    if missing := [path for path in paths if path.name not in found]:
        raise FileNotFoundError(f"{missing[0]}: {len(missing)} of {total} shards are not done")
    ends: dict[str, Ends] = {}
    for path in paths:
        ends |= _ends(found[path.name], str(path))
    return ends


def _ends(marker: bytes, where: str) -> dict[str, Ends]:
    try:
        return {problem: Ends(*own) for problem, own in json.loads(marker)["ends"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f'{where}: expected a marker with "ends", as of a shard of trees') from None


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
