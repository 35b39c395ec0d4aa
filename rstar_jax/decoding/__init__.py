"""The engine: samples steps from the policy, scores them with the PPM."""

from rstar_jax.decoding.config import DecodingConfig
from rstar_jax.decoding.engine import Engine
from rstar_jax.decoding.shards import compiled_programs

__all__ = ["DecodingConfig", "Engine", "compiled_programs"]
