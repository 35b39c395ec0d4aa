"""Every sharding decision of the project."""

from rstar_jax.partitioning.mesh import MeshConfig, constrain, make_mesh, place, sharding, spec

__all__ = ["MeshConfig", "constrain", "make_mesh", "place", "sharding", "spec"]
