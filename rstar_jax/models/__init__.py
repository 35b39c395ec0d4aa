"""Flax modules (decoder, scalar head), their parameters, and Hugging Face folders in and out."""

from rstar_jax.models.config import DecoderConfig
from rstar_jax.models.decoder import Decoder, PreferenceModel
from rstar_jax.models.hub import Policy, Preference, add_tokens, find, load, load_preference, save

__all__ = [
    "Decoder",
    "DecoderConfig",
    "Policy",
    "Preference",
    "PreferenceModel",
    "add_tokens",
    "find",
    "load",
    "load_preference",
    "save",
]
