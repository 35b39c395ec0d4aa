"""Flax modules (decoder, scalar head), their parameters, and Hugging Face folders in and out."""

from rstar_jax.models.config import DecoderConfig, Lora
from rstar_jax.models.decoder import Decoder, PreferenceModel
from rstar_jax.models.hub import (
    Model,
    Policy,
    Preference,
    find,
    fresh,
    is_model,
    load,
    load_preference,
    preference_from_policy,
    save,
    with_markers,
)

__all__ = [
    "Decoder",
    "DecoderConfig",
    "Lora",
    "Model",
    "Policy",
    "Preference",
    "PreferenceModel",
    "find",
    "fresh",
    "is_model",
    "load",
    "load_preference",
    "preference_from_policy",
    "save",
    "with_markers",
]
