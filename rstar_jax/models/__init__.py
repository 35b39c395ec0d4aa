"""Flax modules (decoder, scalar head) and their parameters."""

from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder, PreferenceModel

__all__ = ["Decoder", "DecoderConfig", "PreferenceModel"]
