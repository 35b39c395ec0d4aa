"""Finished models on disk: one Orbax checkpoint of parameters."""

import jax
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from rstar_jax.models import parameters as parameters_lib
from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.parameters import Parameters


def absolute(folder: epath.PathLike) -> epath.Path:
    """The path as Orbax wants it. A bucket's (gs://) is absolute as it is."""
    path = epath.Path(folder)
    return path if path.is_absolute() else path.resolve()


def save(folder: epath.PathLike, parameters: Parameters) -> None:
    """Writes a model. Orbax renames into place, so a model is whole or not there."""
    ocp.save(absolute(folder), parameters, overwrite=True)


def load(folder: epath.PathLike, kind: type[nnx.Module], config: DecoderConfig, mesh: Mesh) -> Parameters:
    """Reads a model straight into its shards.

    Raises: FileNotFoundError if there is none, ValueError for a folder that holds something else or another model.
    """
    folder = absolute(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: expected an Orbax checkpoint of a {kind.__name__} there")
    wanted = parameters_lib.abstract(kind, config, mesh)
    _check(folder, kind, wanted)
    with jax.set_mesh(mesh):
        return ocp.load(folder, wanted)


def _check(folder: epath.Path, kind: type[nnx.Module], wanted: Parameters) -> None:
    """Compares names and shapes, which Orbax would do in many lines."""
    try:
        stored = ocp.metadata(folder).metadata
    except ocp.errors.InvalidLayoutError as error:
        raise ValueError(f"{folder}: expected an Orbax checkpoint of a {kind.__name__}") from error
    found, expected = _shapes(stored), _shapes(wanted)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{folder}: expected a {kind.__name__} with {name} of shape {expected.get(name, 'nothing')}, "
                f"found {found.get(name, 'nothing')}"
            )


def _shapes(tree: Parameters) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
