"""A model is a Hugging Face folder: config.json, safetensors, its tokenizer; a PPM's head and value scale beside them.

Every process reads the slices that its devices hold, and nothing else. config.json is written last: a folder without it
holds no model.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from rstar_jax import files, json_object
from rstar_jax.models import attention, layouts, parameters, torch_file, transfer
from rstar_jax.models.config import DTYPES, DecoderConfig
from rstar_jax.models.decoder import Decoder, PreferenceModel
from rstar_jax.models.safetensors_folder import TensorReader
from rstar_jax.partitioning import MeshConfig, make_mesh, processes
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer

SHARD_BYTES = 2 * 1024**3

_HEAD_FILE, _HEAD_WEIGHT, _HEAD_BIAS = "value_head.bin", "v_head.summary.weight", "v_head.summary.bias"
_SCALE = "value_scale"  # in config.json
_WANTED = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json", _HEAD_FILE]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """A decoder with its parameters, sharded over a mesh.

    fields: of the config.json that it came from, for those that this decoder does not know to survive a round trip.
    tokenizer: None where its folder has none. Step markers that it does not know as tokens are text to it.
    """

    config: DecoderConfig
    parameters: parameters.Parameters
    mesh: Mesh
    fields: Mapping[str, Any]
    tokenizer: Tokenizer | None = None

    def logits(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """fp32 logits of whole sequences, right- or left-padded by `mask` (False: padding).

        positions: those of the tokens; by default each row counts its own tokens from 0. Undefined at padding.
        """
        tokens = jnp.asarray(tokens)
        mask = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask, bool)
        if positions is None:
            positions = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        with jax.set_mesh(self.mesh):
            return _logits(self.config, self.parameters, tokens, jnp.asarray(positions), mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference:
    """A process preference model: a policy's decoder with a scalar head. `parameters` are a `PreferenceModel`'s."""

    config: DecoderConfig
    parameters: parameters.Parameters
    mesh: Mesh
    fields: Mapping[str, Any]
    tokenizer: Tokenizer | None = None

    @property
    def body(self) -> Policy:
        """The decoder without its scalar head."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Policy(**{**own, "parameters": self.parameters["decoder"]})

    def scores(self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, " B"]:
        """Raw fp32 scores of whole sequences, read at the last real token.

        A value is tanh(score / scale), the scale in `parameters["value_scale"]`.
        """
        tokens = jnp.asarray(tokens)
        mask = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask, bool)
        with jax.set_mesh(self.mesh):
            return _scores(self.config, self.parameters, tokens, mask)


Model = TypeVar("Model", Policy, Preference)


@functools.partial(jax.jit, static_argnums=0)
def _logits(config: DecoderConfig, values: parameters.Parameters, tokens, positions, mask) -> jax.Array:
    decoder = parameters.bind(Decoder, config, values)
    attend = attention.whole(attention.Layout(mask.astype(jnp.int32), positions), config.window)
    return decoder.logits(decoder(tokens, positions, attend)[0])


@functools.partial(jax.jit, static_argnums=0)
def _scores(config: DecoderConfig, values: parameters.Parameters, tokens, mask) -> jax.Array:
    model = parameters.bind(PreferenceModel, config, values)
    rows = attention.layout(mask)
    hidden, _ = model.decoder(tokens, rows.positions, attention.whole(rows, config.window))
    last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return model.scores(hidden[jnp.arange(tokens.shape[0]), last])


def load(path_or_hub_name: str | epath.Path, mesh: Mesh | None = None, dtype: str | None = None) -> Policy:
    """A policy from a folder, or by its name on the hub.

    dtype: of the parameters and of the computation; None: what the folder is stored in (float16 is read as bfloat16).
    mesh: by default this process's devices, tensor parallel as far as the key-value heads can be divided.

    Raises: FileNotFoundError or ValueError, with the folder and the tensor or key, for what is missing, left over, of
    another shape, truncated, or of an architecture that is not implemented.
    """
    folder = find(path_or_hub_name)
    fields = _read_fields(folder)
    stored = fields.get("dtype") or fields.get("torch_dtype")
    dtype = dtype or (stored if stored in DTYPES else "bfloat16")
    try:
        model_type, config = layouts.read_config(fields, dtype=dtype, parameter_dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    if mesh is None:
        mesh = make_mesh(MeshConfig(tensor=math.gcd(config.kv_heads, jax.local_device_count())))
    tokenizer = Tokenizer.load(folder) if files.exists(folder / "tokenizer.json") else None
    with TensorReader(folder) as reader:
        values = transfer.read(reader, layouts.tensors(model_type, config), config, mesh)
    return Policy(config=config, parameters=values, mesh=mesh, fields=fields, tokenizer=tokenizer)


def load_preference(
    path_or_hub_name: str | epath.Path, mesh: Mesh | None = None, dtype: str | None = None, value_scale: float = 1.0
) -> Preference:
    """A PPM: a policy's folder with a scalar head beside it, in the released code's `value_head.bin`.

    value_scale: of its values (see `PreferenceModel`), where config.json has none.

    Raises: as `load`; FileNotFoundError, ValueError for a head that is missing or of another size.
    """
    folder = find(path_or_hub_name)
    path = folder / _HEAD_FILE
    if not files.exists(path):
        raise FileNotFoundError(f"{path}: expected the scalar head of a PPM there")
    body = load(folder, mesh, dtype)
    head = torch_file.read(path)
    for name, shape in ((_HEAD_WEIGHT, (1, body.config.embed)), (_HEAD_BIAS, (1,))):
        if name not in head or head[name].shape != shape:
            found = head[name].shape if name in head else "nothing"
            raise ValueError(f"{path}: expected {name} of shape {shape}, found {found}")
    scale = body.fields.get(_SCALE, value_scale)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ValueError(f"{folder / 'config.json'}: {_SCALE}: expected a number above 0, found {scale!r}")
    fresh = preference_from_policy(body, scale)
    values = {"value": head[_HEAD_WEIGHT][0], "bias": head[_HEAD_BIAS].reshape(())}
    placed = {
        name: jax.device_put(value.astype(np.float32), fresh.parameters[name].sharding)
        for name, value in values.items()
    }
    return dataclasses.replace(fresh, parameters={**fresh.parameters, **placed})


def preference_from_policy(policy: Policy, value_scale: float = 1.0) -> Preference:
    """A PPM that begins as `policy` with a head of zeros."""
    own = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    values = parameters.preference_from_policy(policy.config, policy.parameters, policy.mesh, value_scale)
    return Preference(**{**own, "parameters": values})


def fresh(config: DecoderConfig, mesh: Mesh, tokenizer: Tokenizer, seed: int) -> Policy:
    """A policy with random weights and as many rows of the embedding as its tokenizer has ids."""
    config = dataclasses.replace(config, vocabulary_size=len(tokenizer))
    values = parameters.initialise(Decoder, config, mesh, seed)
    ids = {"eos_token_id": tokenizer.ids[markers.END_OF_TEXT], "pad_token_id": tokenizer.ids[markers.PADDING]}
    fields = {**layouts.default_fields(config), **ids}
    return Policy(config=config, parameters=values, mesh=mesh, fields=fields, tokenizer=tokenizer)


def save(model: Policy | Preference, folder: epath.PathLike, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes sharded safetensors and the tokenizer, as `transformers` reads them; at most one shard in host memory.

    A PPM's scalar head goes beside them as the released code's `value_head.bin`, its scale into config.json. Whatever
    model was there is none from the first moment on, and the new one is none before its last. Where several processes
    hold the model, all must call; the first writes.

    Raises: ValueError for a model with adapters that are not merged.
    """
    if model.config.lora is not None:
        raise ValueError(f"{folder}: expected a model whose adapters are merged")
    folder, first = epath.Path(folder), processes.is_first()
    if first:
        files.remove(folder / "config.json")
        files.remove(folder / _HEAD_FILE)
    policy = model if isinstance(model, Policy) else model.body
    fields = layouts.write_config(policy.fields, policy.config)
    fields.pop(_SCALE, None)
    rows = layouts.tensors(fields["model_type"], policy.config)
    transfer.write(folder, policy.parameters, rows, policy.config, shard_bytes)
    head = {}
    if isinstance(model, Preference):
        head = {name: transfer.fetch(model.parameters[name]) for name in ("value", "bias", _SCALE)}
    if first:
        if head:
            weight, bias = (head[name].astype(np.float32) for name in ("value", "bias"))
            torch_file.write(folder / _HEAD_FILE, {_HEAD_WEIGHT: weight[None], _HEAD_BIAS: bias[None]})
            fields[_SCALE] = float(head[_SCALE])
        if policy.tokenizer is not None:
            policy.tokenizer.save(folder)
        files.publish(folder / "config.json", json.dumps(fields, indent=2))
    processes.meet("saved")


def with_markers(model: Model) -> Model:
    """`model` with every step marker as a token of its tokenizer."""
    tokenizer = model.tokenizer.with_markers()
    known = len(model.tokenizer)
    if len(tokenizer) > known:
        model = add_tokens(model, known, len(tokenizer) - known)
    return dataclasses.replace(model, tokenizer=tokenizer)


def add_tokens(model: Model, first: int, count: int) -> Model:
    """`model` with `count` new tokens from id `first` on, their rows the mean of all the tokens before them.

    Rows that the checkpoint has beyond its tokenizer's ids are used; the embedding grows if they do not suffice, to a
    multiple of 128, which every mesh divides.
    """
    rows = model.config.vocabulary_size
    if first + count > rows:
        rows = -(-(first + count) // 128) * 128
    config = dataclasses.replace(model.config, vocabulary_size=rows)
    wanted = parameters.shardings(Decoder, config, model.mesh)
    values = dict(model.parameters if isinstance(model, Policy) else model.parameters["decoder"])
    for name in ("embedding",) if config.tied else ("embedding", "head"):
        grow = jax.jit(_with_means, static_argnums=(1, 2, 3), out_shardings=wanted[name])
        values[name] = grow(values[name], rows, first, count)
    if isinstance(model, Preference):
        values = {**model.parameters, "decoder": values}
    return dataclasses.replace(model, config=config, parameters=values)


def is_model(folder: epath.PathLike) -> bool:
    """Whether a whole model lies there."""
    return files.exists(epath.Path(folder) / "config.json")


def _with_means(table: jax.Array, rows: int, first: int, count: int) -> jax.Array:
    mean = jnp.mean(table[:first].astype(jnp.float32), axis=0).astype(table.dtype)
    table = jnp.pad(table, ((0, rows - table.shape[0]), (0, 0)))
    return table.at[first : first + count].set(mean)


def find(path_or_hub_name: str | epath.Path) -> epath.Path:
    """The folder of that path, or the hub's folder of that name, downloaded unless it is there."""
    if epath.Path(path_or_hub_name).is_dir():
        return epath.Path(path_or_hub_name)
    path_or_hub_name = str(path_or_hub_name)
    from huggingface_hub import snapshot_download  # only where a hub is asked

    try:
        return epath.Path(snapshot_download(path_or_hub_name, allow_patterns=_WANTED))
    except Exception as error:  # of many libraries: names, networks, permissions
        raise FileNotFoundError(
            f"{path_or_hub_name}: neither a folder nor a model that the hub gave: {str(error).splitlines()[0]}"
        ) from error


def _read_fields(folder: epath.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not files.exists(path):
        raise FileNotFoundError(f"{path}: expected the configuration of a Hugging Face model there")
    return json_object.read(path)
