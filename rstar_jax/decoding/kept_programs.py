"""Compiled programs are kept from one process to the next, in the user's cache folder."""

import hashlib
import os
import pathlib
import platform

import jax

_BYTES = 512 * 1024**2


def keep_programs() -> None:
    """Has JAX look for every program among those that were compiled before, unless it was told where to look.

    `JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing. Nothing is kept
    where no folder can be made.
    """
    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return
    try:
        caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        folder = caches / "rstar_jax" / _machine()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that is not there, or not known
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _machine() -> str:
    """A name for machines that run each other's programs: home folders may be shared by several kinds."""
    flags = platform.machine()
    cpu = pathlib.Path("/proc/cpuinfo")
    if cpu.exists():
        flags += next((line for line in cpu.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:12]
