import pytest
from etils import epath

from .bucket import Bucket


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
