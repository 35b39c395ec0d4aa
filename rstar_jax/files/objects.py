"""Whole files, local or in a bucket: each is there with all its bytes, or not there.

Locally a file is written under a name of its own beside its place, synchronised and renamed; a host that loses power
keeps the old content or the new. In a bucket one request writes the object. What a process that was killed has left
beside a local file is removed by the next one that writes into the folder.

A bucket takes about one write a second to one object: what changes oftener is collected first.
"""

import contextlib
import errno
import functools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
from etils import epath

from rstar_jax.files import process

_PARTIAL = ".partial"
_READERS = 32  # requests under way: small files cost a round trip each
# What is written last says that the rest is whole: a shard, a model, a data set, a checkpoint of Orbax in a bucket.
_MARKERS = (".done", "/config.json", "/dataset_info.json", "/commit_success.txt")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)

# Listings that are kept would hide what other processes write, from epath's own calls as well; gcsfs answers even
# `exists` out of them. An object of a zonal bucket is whole only when it is finalised.
for _scheme, _options in {"gs": {"finalize_on_close": True}, "s3": {}}.items():
    fsspec.config.conf.setdefault(_scheme, {}).update(_options, use_listings_cache=False)


def publish(path: epath.PathLike, content: bytes | str) -> None:
    """Writes a file whole, in the place of an old one if there is one; makes its folder. Texts are UTF-8.

    Raises OSError (a full disk) and leaves the old file and nothing else.
    """
    name, content = os.fspath(path), _bytes(content)
    if _is_remote(name):
        _store(name).pipe_file(name, content)
        return
    with staged(name) as local:
        _write(local, content)


def create(path: epath.PathLike, content: bytes | str) -> bool:
    """Writes a file whole if none is there; whether it did. Of several processes one gets True.

    The local disk answers exactly, and so do buckets whose client asks the server: gs (`ifGenerationMatch=0`), s3
    (`If-None-Match`). Other clients of fsspec look first and then write. A request that was sent again because its
    answer got lost finds its own object: equal bytes count as written, so who must know itself writes a random word.
    """
    name, content = os.fspath(path), _bytes(content)
    if _is_remote(name):
        try:
            _store(name).pipe_file(name, content, mode="create")
        except FileExistsError:
            return read(name) == content
        return True
    try:
        with partial(name) as local:
            _write(local, content)
            _sync(local)
            os.link(local, name)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with open(name, "xb") as file:  # whole unless the host goes down meanwhile
                file.write(content)
        except FileExistsError:
            return False
    _sync(os.path.dirname(name) or ".")
    return True


@contextlib.contextmanager
def staged(path: epath.PathLike) -> Iterator[str]:
    """Gives the name of a local file to write; it is published as `path` if nothing went wrong, else removed."""
    with partial(path) as local:
        yield local
        publish_file(local, path)


def publish_file(local: str, path: epath.PathLike) -> None:
    """Publishes a local file: moves it if `path` is on its disk, else uploads it, never held in memory whole."""
    name = os.fspath(path)
    if _is_remote(name):
        _store(name).put_file(local, name)
        return
    _sync(local)
    os.replace(local, name)
    _sync(os.path.dirname(name) or ".")


@contextlib.contextmanager
def fetched(path: epath.PathLike) -> Iterator[str]:
    """Gives a local name of a file: its own, or that of a copy, which is removed (a file that is open lives on)."""
    name = os.fspath(path)
    if not _is_remote(name):
        yield name
        return
    with partial(name) as local:
        _store(name).get_file(name, local)
        yield local


def read(path: epath.PathLike) -> bytes:
    """The content of a file. Raises FileNotFoundError."""
    name = os.fspath(path)
    if _is_remote(name):
        return _store(name).cat_file(name)
    with open(name, "rb") as file:
        return file.read()


def read_all(paths: Iterable[epath.PathLike]) -> dict[str, bytes]:
    """{path as text: content} of the files that are there, many at a time."""

    def content(name: str) -> bytes | None:
        try:
            return read(name)
        except FileNotFoundError:
            return None

    wanted = [os.fspath(path) for path in paths]
    with ThreadPoolExecutor(_READERS) as readers:
        found = zip(wanted, readers.map(content, wanted), strict=True)
        return {name: content for name, content in found if content is not None}


def size(path: epath.PathLike) -> int | None:
    """How many bytes a file has; None if it is not there."""
    name = os.fspath(path)
    try:
        return _store(name).info(name)["size"] if _is_remote(name) else os.stat(name).st_size
    except FileNotFoundError:
        return None


def exists(path: epath.PathLike) -> bool:
    """Whether there is such a file or folder; raises, unlike others, if the bucket could not be asked."""
    return size(path) is not None


def names(folder: epath.PathLike) -> list[str]:
    """The names of what lies in a folder, in order, from a new listing; no half-written files. [] if it is not there.

    What was written last may be missing from the listing of some stores (not of gs): who must know asks `exists`.
    """
    name = os.fspath(folder)
    try:
        if _is_remote(name):
            found = [entry.rstrip("/") for entry in _store(name).ls(name, detail=False, refresh=True)]
            # Some stores keep an empty object for the folder itself.
            entries = [os.path.basename(entry) for entry in found if not name.rstrip("/").endswith(entry)]
        else:
            entries = os.listdir(name)
    except FileNotFoundError:
        return []
    return sorted(entry for entry in entries if not entry.endswith(_PARTIAL))


def markers(folder: epath.PathLike, suffix: str, also: Iterable[str] = ()) -> dict[str, bytes]:
    """{name: content} of a folder's files that end in `suffix`: one listing, then reads side by side.

    also: names to read even if the listing does not know them yet; those that are not there are left out.
    """
    wanted = {name for name in names(folder) if name.endswith(suffix)} | set(also)
    found = read_all(epath.Path(folder) / name for name in sorted(wanted))
    return {os.path.basename(path): content for path, content in found.items()}


def remove(path: epath.PathLike) -> None:
    """Removes a file, if it is there."""
    name = os.fspath(path)
    with contextlib.suppress(FileNotFoundError):
        if _is_remote(name):
            _store(name).rm_file(name)
        else:
            os.unlink(name)


def remove_tree(folder: epath.PathLike) -> None:
    """Removes a folder with all that is in it, if it is there.

    A local one is gone at once. A bucket loses one object after another, and first all that says that others are whole.
    """
    name = os.fspath(folder).rstrip("/")
    with contextlib.suppress(FileNotFoundError):
        if _is_remote(name):
            store = _store(name)
            for suffix in (_MARKERS, ""):
                if found := [own for own in store.find(name) if own.endswith(suffix)]:
                    store.rm(found)
            return
        aside = _partial_name(name)
        os.rename(name, aside)
        shutil.rmtree(aside)


@contextlib.contextmanager
def partial(path: epath.PathLike) -> Iterator[str]:
    """Gives the name of a local file to write that nobody else uses, on the disk of `path`; removes what is there."""
    local = _partial_name(os.fspath(path))
    try:
        yield local
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:  # of a write: the system does not say to what
            error.filename = os.fspath(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(local)


def _partial_name(name: str) -> str:
    """A name that nobody else uses, on the disk of a local path, in the temporary folder for a remote one."""
    folder = os.path.dirname(name) or "."
    if _is_remote(name):
        folder = os.path.join(tempfile.gettempdir(), f"rstar_{os.getuid()}")
    _make_folder(folder)
    _sweep(folder)
    writer = f"{process.machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return os.path.join(folder, f".{os.path.basename(name)}.{writer}{_PARTIAL}")


@functools.lru_cache(4096)
def _sweep(folder: str) -> None:
    """Removes what processes of this machine that run no more have left half-written; once a folder and process."""
    for name in os.listdir(folder):
        if not name.endswith(_PARTIAL):
            continue
        machine, _, rest = name.removesuffix(_PARTIAL).rpartition(".")[2].partition("-")
        pid = rest.partition("-")[0]
        if machine == process.machine() and pid.isdecimal() and process.born(int(pid)) is None:
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # another one sweeps too
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def _make_folder(folder: str) -> None:
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder.rstrip("/")) or "."
    _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    _sync(parent)


def _write(local: str, content: bytes) -> None:
    with open(local, "xb") as file:
        file.write(content)


def _sync(path: str) -> None:
    """Waits until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems know no such thing of folders
            raise
    finally:
        os.close(descriptor)


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _is_remote(name: str) -> bool:
    return "://" in name


def _store(name: str) -> fsspec.AbstractFileSystem:
    # Asked for each time: fsspec keeps one a process, and none of these lives through a fork.
    scheme = name.partition("://")[0]
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        told = "`pip install 'rstar_jax[gcs]'` brings what gs:// needs" if scheme == "gs" else error
        raise ValueError(f"{name}: {told}") from error
