"""One verifier for the tests that do not break it, and a reader of the shared tables."""

import json

import hypothesis
import pytest

from rstar_jax.verifier import Limits, Verifier

hypothesis.settings.register_profile("busy host", deadline=None)
hypothesis.settings.load_profile("busy host")

LIMITS = Limits(cpu_seconds=0.5, wall_seconds=4.0, prefix_cpu_seconds=0.5, prefix_wall_seconds=4.0)


@pytest.fixture(scope="session")
def verifier():
    with Verifier(LIMITS, workers=2) as verifier:
        yield verifier


@pytest.fixture
def table(shared_folder):
    """Reads a file of the shared folder's verifier/, or skips the test where it is not there."""

    def read(name):
        path = shared_folder / "verifier" / name
        if not path.exists():
            pytest.skip(f"no {name} in the shared folder")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return read
