"""The four rounds of rStar-Math in one resumable command (paper: section 3.4).

    problems -> base -> [search, pass by pass -> select -> policy -> PPM -> evaluate] x rounds -> control -> report

Each arrow is a phase of the run folder: done once, or begun again. Nothing is handed from phase to phase in memory that
is not read back from the folder, so a resumed run and an undisturbed one see the same bytes, and so do several
processes that share a run.
"""

import datetime
import platform

import jax
from etils import epath

from rstar_jax import configuration, files
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.evolution.plan import BASE, IMPORTED, plan
from rstar_jax.evolution.run import Run
from rstar_jax.evolution.run_folder import RunFolder, Worker, dependents
from rstar_jax.evolution.world import open_world
from rstar_jax.report import report


def evolve(
    config: EvolutionConfig,
    run_dir: epath.PathLike,
    *,
    redo: str | None = None,
    phase: str | None = None,
    worker: Worker | None = None,
) -> epath.Path:
    """Runs all rounds, or what is left of them; returns the path of the report.

    redo: a phase that is done again first, with all that depends on it. phase: the only one that is done.
    worker: which of several processes this one is.
    Raises: ValueError, before anything is written, where a phase was made with other settings; `files.Held` where a
    phase that is to be done again is at work.
    """
    run = Run(config=config, folder=RunFolder(run_dir))
    folder = run.folder
    if jax.config.jax_compilation_cache_dir is None:  # a resumed run compiles nothing again
        jax.config.update("jax_compilation_cache_dir", str(folder.path / "compiled"))
    planned = plan(run)
    again = [] if redo is None else dependents(redo, planned)
    base = folder.settings(BASE)
    if base is not None and base.startswith(IMPORTED) and BASE in [phase.name for phase in again]:
        raise ValueError(f"--redo={redo}: the base of {run_dir} was imported: `rstar import` makes one, of a new run")
    folder.check([phase for phase in planned if phase not in again])
    with open_world(config) as run.world:
        folder.drop(again)
        files.publish(folder.path / "config.gin", configuration.operative(config))
        device = jax.devices()[0]
        folder.log_start(
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            python=platform.python_version(),
            jax=jax.__version__,
            devices=f"{jax.device_count()} {device.device_kind}",
            isolation=run.world.verifier.layers,
        )
        folder.run(planned, worker, phase, progress.say)
    return report(folder.path)
