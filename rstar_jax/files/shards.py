"""Records in shards: array_record files, each with a done-marker beside it.

    FOLDER/NAME-00002-of-00064.array_record
    FOLDER/NAME-00002-of-00064.done             {"records": 512, ..., "bytes": 131072, "digest": "..."}

A shard is written on the local disk, published whole, then its marker, which holds counts and the shard's digest. What
has no marker was never written: who was killed goes on with `missing_shards`. A shard that is written twice with the
same bytes is left alone the second time; with other bytes, its marker goes first.

Records are compressed in groups, because those of one file have much in common; to read one, its group is read. A file
is a multiple of 64 KiB, so that many small shards cost more than few large ones.
"""

import bisect
import collections
import contextlib
import errno
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from rstar_jax.files import objects

GROUP = 16
COMPRESSION = "zstd:1"
_MARKER = ".done"
_SHARD = ".array_record"

T = TypeVar("T")


def shard_path(folder: epath.PathLike, shard: int, total: int, name: str = "shard") -> epath.Path:
    """The file of one shard. Raises ValueError if there is no such shard."""
    if not 0 <= shard < total:
        raise ValueError(f"shard must lie in [0, {total}), got {shard}")
    return epath.Path(folder) / f"{name}-{shard:05d}-of-{total:05d}{_SHARD}"


def missing_shards(folder: epath.PathLike, total: int, name: str = "shard") -> list[int]:
    """The shards that are not done, by one listing."""
    there = set(objects.names(folder))
    return [shard for shard in range(total) if marker_path(shard_path(folder, shard, total, name)).name not in there]


def done_shards(folder: epath.PathLike, name: str = "shard") -> list[epath.Path]:
    """The files of the shards that are done, in order, by one listing.

    Raises: ValueError if shards of different totals lie in the folder: some problems would be counted twice.
    """
    done = [epath.Path(folder) / marker for marker in objects.names(folder) if marker.endswith(_MARKER)]
    done = [marker for marker in done if marker.name.startswith(f"{name}-")]
    totals = {marker.stem.rpartition("-")[2] for marker in done}
    if len(totals) > 1:
        raise ValueError(
            f"{folder} holds shards of different totals ({', '.join(sorted(totals))}); remove the old ones"
        )
    return [marker.with_suffix(_SHARD) for marker in done]


def marker_path(path: epath.Path) -> epath.Path:
    """The done-marker of a shard."""
    return path.with_suffix(_MARKER)


class Shard:
    """A shard that is being written: `write` adds a record; what is put into `marker` comes to stand in its marker."""

    def __init__(self, writer: ArrayRecordWriter, noun: str):
        self.marker: dict[str, Any] = {noun: 0}
        self._writer, self._noun = writer, noun

    def write(self, record: bytes) -> None:
        """Adds a record."""
        self._writer.write(record)
        self.marker[self._noun] += 1


@contextlib.contextmanager
def writing_shard(
    path: epath.Path, *, noun: str = "records", compression: str = COMPRESSION, voids: Sequence[epath.PathLike] = ()
) -> Iterator[Shard]:
    """Gives a shard to write; it is published if nothing went wrong, else nothing is left of it. May be held open.

    noun: what the marker calls the count of records.
    voids: files that are true no more where other bytes stood under this name before; they go with the old marker.
    Raises OSError where the disk is full.
    """
    with objects.partial(path) as local:
        writer = ArrayRecordWriter(local, f"group_size:{GROUP},{compression}")
        try:
            shard = Shard(writer, noun)
            yield shard
        except BaseException:
            with contextlib.suppress(RuntimeError):
                writer.close()
            raise
        with _disk_faults(path):
            writer.close()
        with open(local, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        shard.marker |= {"bytes": os.path.getsize(local), "digest": digest}
        marker = json.dumps(shard.marker).encode()
        old = objects.read_all([marker_path(path)]).get(os.fspath(marker_path(path)))
        if old == marker and objects.size(path) == shard.marker["bytes"]:
            return
        for void in [*voids, marker_path(path)] if old is not None else voids:
            objects.remove(void)
        objects.publish_file(local, path)
        objects.publish(marker_path(path), marker)


def write_shard(path: epath.Path, records: Iterable[bytes], **options: Any) -> epath.Path:
    """Writes one shard and its marker; options as `writing_shard`. Returns the shard's path."""
    with writing_shard(path, **options) as shard:
        for record in records:
            shard.write(record)
    return path


class Records(Sequence[T], Generic[T]):
    """The records of some shards, read when they are asked for, by index or in order; from any thread.

    paths, counts: the shards, and how many records each holds; without counts, as their markers say.
    decode: what becomes of the bytes of each; noun: what messages call one.
    open_files, cache_bytes: how many shards may be open at a time, and how much disk the copies of remote ones may
        take, at least one. Reading in a random order more than fits copies them over and over.
    Raises: FileNotFoundError if a shard's marker does not stand. ValueError, in one line that names the file, if what
    lies there is no shard, or not with that many records.
    """

    def __init__(
        self,
        paths: Sequence[epath.PathLike],
        counts: Sequence[int] | None = None,
        *,
        decode: Callable[[bytes], T] = bytes,
        noun: str = "record",
        source: str = "its marker",
        open_files: int = 64,
        cache_bytes: int = 8 << 30,
    ):
        self._paths = [epath.Path(path) for path in paths]
        counts = _counts(self._paths, f"{noun}s") if counts is None else counts
        self._ends = list(itertools.accumulate(counts))
        self._decode, self._noun, self._source = decode, noun, source
        self._open_files, self._cache_bytes = open_files, cache_bytes
        self._readers: collections.OrderedDict[int, tuple[ArrayRecordReader, int]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> "Records[T]":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:  # for processes that read too; each opens its own
        return {**self.__dict__, "_readers": collections.OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def close(self) -> None:
        """Closes the shards that are open, and frees the copies; the records may still be read after it."""
        with self._lock:
            self._shrink(0)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def sizes(self) -> list[int]:
        """How many records each shard holds."""
        return [end - start for start, end in itertools.pairwise([0, *self._ends])]

    def __getitem__(self, index: int) -> T:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[T]:
        """The records of some indices, in their order; each shard is asked once."""
        found: dict[int, bytes] = {}
        by_shard: dict[int, list[int]] = collections.defaultdict(list)
        for index in sorted(set(indices)):
            by_shard[bisect.bisect_right(self._ends, index)].append(index)
        for shard, wanted in by_shard.items():
            found.update(zip(wanted, self._read(shard, wanted), strict=True))
        return [self._decoded(index, found[index]) for index in indices]

    def __iter__(self) -> Iterator[T]:
        start = 0
        for shard, end in enumerate(self._ends):
            for first in range(start, end, GROUP):  # a whole group costs what one of its records would
                indices = range(first, min(first + GROUP, end))
                for index, record in zip(indices, self._read(shard, indices), strict=True):
                    yield self._decoded(index, record)
            start = end

    def _start(self, shard: int) -> int:
        return self._ends[shard - 1] if shard else 0

    def _decoded(self, index: int, record: bytes) -> T:
        try:
            return self._decode(record)
        except ValueError as error:
            shard = bisect.bisect_right(self._ends, index)
            where = f"{self._paths[shard]}, {self._noun} {index - self._start(shard)}"
            raise ValueError(f"{where}: {error}") from error

    def _read(self, shard: int, indices: Sequence[int]) -> list[bytes]:
        start = self._start(shard)
        try:
            with self._lock:
                return self._reader(shard).read([index - start for index in indices])
        except (ValueError, RuntimeError) as error:  # array_record calls its own RuntimeError
            raise ValueError(f"{self._paths[shard]}: {error}") from error

    def _reader(self, shard: int) -> ArrayRecordReader:
        if shard in self._readers:
            self._readers.move_to_end(shard)
            return self._readers[shard][0]
        self._shrink(self._open_files - 1)
        with objects.fetched(self._paths[shard]) as local:
            # A copy has lost its name when this block ends, and its bytes when the reader closes: a process that is
            # killed leaves none.
            size = os.path.getsize(local) if local != os.fspath(self._paths[shard]) else 0
            reader = ArrayRecordReader(local, options="readahead_buffer_size:0", file_reader_buffer_size=32768)
        expected = self._ends[shard] - self._start(shard)
        if (found := reader.num_records()) != expected:
            reader.close()
            raise ValueError(f"holds {found} {self._noun}s, {self._source} says {expected}")
        self._readers[shard] = reader, size
        self._shrink(self._open_files, self._cache_bytes)
        return reader

    def _shrink(self, files: int, copied: int = 0) -> None:
        """Closes those that were not used for longest, until no more are open, and their copies take no more bytes."""
        while len(self._readers) > files or (
            copied and len(self._readers) > 1 and sum(size for _, size in self._readers.values()) > copied
        ):
            self._readers.popitem(last=False)[1][0].close()


def _counts(paths: Sequence[epath.Path], noun: str) -> list[int]:
    """How many records the shards hold, by their markers."""
    wanted = [marker_path(path) for path in paths]
    found, counts = objects.read_all(wanted), []
    for path, marker in zip(paths, wanted, strict=True):
        if os.fspath(marker) not in found:
            raise FileNotFoundError(f"{path} is not done: {marker.name} does not stand beside it")
        try:
            counts.append(int(json.loads(found[os.fspath(marker)])[noun]))
        except (ValueError, TypeError, KeyError):
            raise ValueError(f'{marker}: expected {{"{noun}", ...}}, the counts of its shard') from None
    return counts


@contextlib.contextmanager
def _disk_faults(path: epath.PathLike) -> Iterator[None]:
    """Lets what the system says come out as OSError; array_record's own is a RuntimeError that quotes it."""
    try:
        yield
    except RuntimeError as error:
        number = next((code for code in errno.errorcode if os.strerror(code) in str(error)), errno.EIO)
        raise OSError(number, f"{os.strerror(number)}: {path}") from error
