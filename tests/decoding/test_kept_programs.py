"""A second process finds the programs of the first, in a folder that the user may choose or do without."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import jax
from rstar_jax.decoding import keep_programs
keep_programs()
jax.jit(lambda x: jax.lax.sort(jax.numpy.sin(x) + jax.random.normal(jax.random.key(0), x.shape)))(jax.numpy.ones(999))
print(jax.config.jax_compilation_cache_dir)
"""


def told(**environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XDG_"))}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return run.stdout.strip()


def test_programs_are_kept_in_the_cache_folder(tmp_path):
    folder = told(XDG_CACHE_HOME=str(tmp_path))
    assert folder.startswith(str(tmp_path / "rstar_jax"))
    assert any(name.startswith("jit_") for name in os.listdir(folder))


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAX_COMPILATION_CACHE_DIR": "/dev/null/of_the_user"}, "/dev/null/of_the_user"),
        ({"JAX_ENABLE_COMPILATION_CACHE": "0"}, "None"),
        ({"XDG_CACHE_HOME": "/dev/null"}, "None"),
    ],
)
def test_the_user_says_where_or_whether(tmp_path, environment, folder):
    assert told(**{"XDG_CACHE_HOME": str(tmp_path)} | environment) == folder
    assert not list(tmp_path.iterdir())
