"""Buckets: an object store in the process, and one that is reached over HTTP."""

import contextlib

import fsspec
import pytest
from etils import epath

from tests.files.bucket import Bucket
from tests.files.gcs_server import Server


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An empty bucket, as gs://bucket."""
    (tmp_path / "bucket").mkdir()
    monkeypatch.setenv("BUCKET", str(tmp_path / "bucket"))
    monkeypatch.setattr(Bucket, "writes", 0)
    monkeypatch.setattr(Bucket, "requests", [])
    return epath.Path("gs://bucket/run")


@pytest.fixture(params=["local", "gs"])
def folder(request, tmp_path):
    """A folder that is not there yet, on the disk or in a bucket."""
    return epath.Path(tmp_path / "run") if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture(scope="session")
def server():
    """A server of buckets; the environment leads TensorStore and gcsfs to it."""
    with contextlib.closing(Server()) as own, pytest.MonkeyPatch.context() as patch:
        for name, value in own.environment.items():
            patch.setenv(name, value)
        yield own


@pytest.fixture(params=["fake", "gcsfs"])
def orbax_bucket(request, bucket, server, tmp_path, monkeypatch):
    """An empty bucket, as gs://bucket, in which Orbax can write too: its arrays go over HTTP.

    The rest does where gcsfs is installed, which nothing else here needs; and by the fake, everywhere.
    """
    server.root = tmp_path / "bucket"
    if request.param == "fake":
        # Asked by google-cloud-storage, which comes with gcsfs, whether it keeps folders. It does not.
        monkeypatch.setattr("orbax.checkpoint._src.path.gcs_utils.get_bucket", lambda name: None)
        yield bucket
        return
    own = pytest.importorskip("gcsfs").GCSFileSystem
    try:
        register(own)
        yield bucket
    finally:
        register(Bucket)


def register(kind: type[fsspec.AbstractFileSystem]) -> None:
    """Makes `kind` what gs:// is asked for, by us and by epath."""
    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, kind, clobber=True)
    type(epath.backend.fsspec_backend)._get_filesystem.cache_clear()
