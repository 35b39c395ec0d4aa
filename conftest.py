"""What every test runs on: eight CPU devices, no network, and the shared folder where there is one."""

import os
import pathlib
import sys

import pytest

# Read when JAX is imported, and when its backend starts: a pytest plugin that imports JAX would come before us.
assert "jax" not in sys.modules, "a pytest plugin has imported jax before conftest.py could ask for eight CPU devices"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Most of a test of a small model is its compilation.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_folder() -> pathlib.Path:
    """Models and data too large for the repository: the folder RSTAR_SHARED, or shared/ beside the checkout."""
    folder = pathlib.Path(os.environ.get("RSTAR_SHARED") or pathlib.Path(__file__).resolve().parent.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; RSTAR_SHARED names another")
    return folder
