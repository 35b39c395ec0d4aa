"""A bucket in a folder, under the name of gs://: what an object store can do, and nothing that a disk can besides.

An object appears whole when it is closed. There is no appending and no moving; `create` is exact. Listings may lag
behind (reads do not), and are kept as gcsfs keeps them unless they are told not to. Processes share a bucket through
the environment: BUCKET is its folder, BUCKET_LAG the seconds that listings lag behind.

    crash_at    the write, counted from 0, at which the process is dead: half of them before it, half after it
"""

import io
import os
import pathlib
import time
import urllib.parse

import fsspec


class Killed(BaseException):
    """What a process that is killed would not live to see."""


class Bucket(fsspec.AbstractFileSystem):
    protocol = ("gs", "gcs")
    crash_at: int | None = None
    writes = 0
    is_out_of_reach = False
    requests: list[str] = []

    @property
    def root(self) -> pathlib.Path:
        return pathlib.Path(os.environ["BUCKET"])

    def _path(self, path: str) -> pathlib.Path:
        return self.root / urllib.parse.quote(self._strip_protocol(path), safe="")

    def _ask(self, what: str) -> None:
        Bucket.requests.append(what)
        if Bucket.is_out_of_reach:
            raise ConnectionError(f"{what}: out of reach")

    def _change(self, what: str, change) -> None:
        self._ask(what)
        point, Bucket.writes = Bucket.writes, Bucket.writes + 1
        if self.crash_at is not None and 2 * point >= self.crash_at:
            raise Killed
        change()
        if self.crash_at is not None and 2 * point + 1 >= self.crash_at:
            raise Killed

    def _put(self, path: str, content: bytes, exclusive: bool) -> None:
        place = self._path(path)
        aside = self.root / f"aside/{os.getpid()}-{time.monotonic_ns()}"

        def change():
            aside.parent.mkdir(exist_ok=True)
            aside.write_bytes(content)
            if exclusive:
                try:
                    os.link(aside, place)
                finally:
                    aside.unlink()
            else:
                aside.replace(place)

        self._change(f"write {path}", change)
        self.dircache.pop(self._parent(self._strip_protocol(path)), None)

    def _open(self, path, mode="rb", **_):
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        if mode not in ("wb", "xb"):
            raise NotImplementedError(f"{mode}: objects are written whole")
        put = self._put

        class Upload(io.BytesIO):
            def close(self):
                if not self.closed:
                    put(path, self.getvalue(), mode == "xb")
                super().close()

        return Upload()

    def pipe_file(self, path, value, mode="overwrite", **_):
        self._put(path, value, mode == "create")

    def put_file(self, lpath, rpath, **_):
        self._put(rpath, pathlib.Path(lpath).read_bytes(), False)

    def get_file(self, rpath, lpath, **_):
        pathlib.Path(lpath).write_bytes(self.cat_file(rpath))

    def cat_file(self, path, start=None, end=None, **_):
        self._ask(f"read {path}")
        try:
            return self._path(path).read_bytes()[start:end]
        except FileNotFoundError:
            raise FileNotFoundError(path) from None

    def rm_file(self, path):
        place = self._path(path)
        if not place.exists():
            raise FileNotFoundError(path)
        gone = self.root / "gone"

        def change():
            gone.mkdir(exist_ok=True)
            place.rename(gone / place.name)
            os.utime(gone / place.name)

        self._change(f"remove {path}", change)
        self.dircache.pop(self._parent(self._strip_protocol(path)), None)

    def rm(self, path, recursive=False, maxdepth=None):
        there = [own for own in self.expand_path(path, recursive, maxdepth) if self._path(own).exists()]
        if not there:
            raise FileNotFoundError(path)
        for own in there:
            self.rm_file(own)

    def mv(self, *_, **__):
        raise NotImplementedError("objects have no other names")

    def mkdir(self, path, create_parents=True, **_):
        """Folders are part of names."""

    def makedirs(self, path, exist_ok=False):
        """Folders are part of names."""

    def info(self, path, **_):
        path = self._strip_protocol(path)
        if (parent := self._parent(path)) in self.dircache:  # gcsfs answers out of what it keeps
            for entry in self.dircache[parent]:
                if entry["name"] == path:
                    return entry
            raise FileNotFoundError(path)
        self._ask(f"info {path}")
        if self._path(path).exists():
            return {"name": path, "type": "file", "size": self._path(path).stat().st_size}
        if any(name.startswith(path + "/") for name in self._keys()):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path, detail=True, refresh=False, **_):
        path = self._strip_protocol(path)
        if refresh:
            self.dircache.pop(path, None)
        if path not in self.dircache:
            self._ask(f"list {path}")
            found = {}
            for key in self._keys():
                if key.startswith(path + "/"):
                    name, _, deeper = key[len(path) + 1 :].partition("/")
                    name = f"{path}/{name}"
                    size = 0 if deeper or not self._path(key).exists() else self._path(key).stat().st_size
                    found[name] = {"name": name, "type": "directory" if deeper else "file", "size": size}
            if not found:
                raise FileNotFoundError(path)
            self.dircache[path] = [found[name] for name in sorted(found)]
            if not self.dircache.use_listings_cache:
                return self._shown([found[name] for name in sorted(found)], detail)
        return self._shown(self.dircache[path], detail)

    def _shown(self, entries, detail):
        return entries if detail else [entry["name"] for entry in entries]

    def _keys(self) -> list[str]:
        """The keys as listings have them."""
        lag = float(os.environ.get("BUCKET_LAG", 0))
        now = time.time()
        there = [file for file in self.root.iterdir() if file.is_file()]
        keys = [file.name for file in there if lag == 0 or now - file.stat().st_mtime > lag]
        if lag and (self.root / "gone").is_dir():
            keys += [file.name for file in (self.root / "gone").iterdir() if now - file.stat().st_mtime <= lag]
        return sorted({urllib.parse.unquote(key) for key in keys})


fsspec.register_implementation("gs", Bucket, clobber=True)
fsspec.register_implementation("gcs", Bucket, clobber=True)
