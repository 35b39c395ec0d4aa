"""The engine: samples steps from the policy, scores them with the PPM."""

from rstar_jax.decoding.config import DecodingConfig
from rstar_jax.decoding.engine import Engine
from rstar_jax.decoding.kept_programs import keep_programs
from rstar_jax.decoding.sampling import GREEDY, Sampling
from rstar_jax.decoding.shards import compiled_programs

__all__ = ["GREEDY", "DecodingConfig", "Engine", "Sampling", "compiled_programs", "keep_programs"]
