"""`rstar import`: a checkpoint becomes the base of a run."""

from etils import epath

from rstar_jax import models
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.evolution.plan import BASE, IMPORTED
from rstar_jax.evolution.run_folder import Phase, RunFolder
from rstar_jax.partitioning import make_mesh


def import_model(*, config: EvolutionConfig, model: str, run_dir: str, kind: str, dtype: str | None) -> None:
    """A Hugging Face checkpoint as the base of a run, or as its first PPM; its step markers are added as tokens.

    Raises: FileExistsError if the run has one already.
    """
    folder = RunFolder(run_dir)
    target = folder.round(0) / kind
    if models.is_model(target) or (kind == "policy" and folder.is_done(BASE)):
        raise FileExistsError(f"--run_dir={run_dir}: has a {kind} already, {target}; expected a new run folder")
    mesh, source = make_mesh(config.mesh), models.find(model)
    if kind == "policy":
        loaded = models.load(source, mesh, dtype)
    else:
        loaded = models.load_preference(source, mesh, dtype, config.value_scale)
    if loaded.tokenizer is None:
        raise FileNotFoundError(f"{epath.Path(source) / 'tokenizer.json'}: expected a tokenizer there")

    def write() -> None:
        models.save(models.with_markers(loaded), target)

    if kind == "policy":
        settings = {IMPORTED: model, "parameter_dtype": loaded.config.parameter_dtype}
        outputs = ("round_0/policy",)
        folder.run([Phase(name=BASE, round=0, settings=settings, inputs=(), outputs=outputs, work=write)])
    else:
        write()
    print(target)
