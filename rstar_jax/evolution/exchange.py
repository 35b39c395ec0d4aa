"""Checkpoints in and out of a run folder: `rstar import` makes round 0 of one, `rstar export` takes a model out."""

import json
from typing import Any

from etils import epath

from rstar_jax import models
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.evolution.run_folder import publish
from rstar_jax.models import DecoderConfig, layouts
from rstar_jax.partitioning import make_mesh
from rstar_jax.training import checkpoints
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer

_KINDS = {"policy": (models.Decoder, models.Policy), "ppm": (models.PreferenceModel, models.Preference)}
_FIELDS = "hugging_face.json"  # config.json of the checkpoint that a run began from


def import_model(*, config: EvolutionConfig, model: str, run_dir: str, kind: str, dtype: str) -> None:
    """A Hugging Face checkpoint as the policy (or the PPM) of round 0 of a run, its markers added as tokens."""
    module, _ = _kind(kind)
    folder = epath.Path(run_dir)
    source = models.find(model)
    tokenizer = Tokenizer.load(source, markers_as="new tokens")
    known = len(Tokenizer.load(source, markers_as="text"))
    mesh = make_mesh(config.mesh)
    if module is models.Decoder:
        loaded = models.load(str(source), mesh, dtype)
    else:
        loaded = models.load_preference(str(source), mesh, dtype, config.value_scale)
    if len(tokenizer) > known:
        loaded = models.add_tokens(loaded, known, len(tokenizer) - known)
    checkpoints.save(folder / "round_0" / kind, loaded.parameters)
    tokenizer.save(folder / "tokenizer")
    publish(folder / _FIELDS, json.dumps(layouts.write_config(loaded.fields, loaded.config), indent=2))
    print(folder / "round_0" / kind)


def export_model(*, config: EvolutionConfig, run_dir: str, round: int, kind: str, output: str) -> None:
    """The policy or the PPM of a round as a Hugging Face folder, its tokenizer with it."""
    module, model = _kind(kind)
    folder = epath.Path(run_dir)
    mesh = make_mesh(config.mesh)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    fields, decoder = _decoder(folder, config, tokenizer)
    values = checkpoints.load(folder / f"round_{round}" / kind, module, decoder, mesh)
    models.save(model(config=decoder, parameters=values, mesh=mesh, fields=fields), output)
    tokenizer.save(output)
    print(output)


def _kind(name: str) -> tuple[type, type]:
    if name not in _KINDS:
        raise ValueError(f"--kind={name}: expected policy or ppm")
    return _KINDS[name]


def _decoder(folder: epath.Path, config: EvolutionConfig, tokenizer: Tokenizer) -> tuple[dict[str, Any], DecoderConfig]:
    """The fields of config.json, and the decoder, of a run that began from a checkpoint or from random weights."""
    path = folder / _FIELDS
    if path.exists():
        fields = json.loads(path.read_text())
        return fields, layouts.read_config(fields, dtype=fields["dtype"], parameter_dtype=fields["dtype"])[1]
    decoder = config.decoder(len(tokenizer))
    ends = {"eos_token_id": tokenizer.ids[markers.END_OF_TEXT], "pad_token_id": tokenizer.ids[markers.PADDING]}
    return {**layouts.default_fields(decoder), **ends}, decoder
