"""Several processes, one a host of a pod, that train one model together."""

import re

import jax
from jax.experimental import multihost_utils


def join(coordinator: str | None, process: str | None) -> None:
    """Joins the processes of one training, before JAX has looked for devices; does nothing without a coordinator.

    coordinator: "HOST:PORT" of the first process, or "auto" where the cluster says it (TPU pods, Slurm, MPI, GKE).
    process: "INDEX/COUNT", counted from 0; not for "auto".

    Raises: ValueError that names the flag.
    """
    if coordinator is None:
        if process is not None:
            raise ValueError(f"--process={process}: expected a --coordinator beside it")
        return
    if coordinator == "auto":
        if process is not None:
            raise ValueError(f"--process={process}: expected none beside --coordinator=auto, which finds it out")
        jax.distributed.initialize()
        return
    if not re.fullmatch(r"[^\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator}: expected HOST:PORT, or auto")
    match = re.fullmatch(r"(\d+)/(\d+)", process or "")
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"--process={process}: expected INDEX/COUNT, such as 0/4 to 3/4, beside --coordinator")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of processes without an accelerator
    jax.distributed.initialize(coordinator, num_processes=int(match[2]), process_id=int(match[1]))


def is_first() -> bool:
    """Whether this process is the one that writes for all."""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Waits until all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
