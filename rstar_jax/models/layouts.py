"""How Hugging Face folders spell a decoder: config.json, and the name and shape of every tensor.

One table drives import and export. A row says which of our parameters a tensor holds, and how its two dimensions are
made of our axes: a `q_proj.weight` is (heads x head, embed), where ours is [layers, embed, heads, head].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rstar_jax.models.config import DecoderConfig, LinearScaling, Llama3Scaling

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "phi3": "Phi3ForCausalLM"}

Axes = tuple[tuple[str, ...], ...]

_VECTOR: Axes = (("activation",),)
_QUERY: Axes = (("heads", "head"), ("embed",))
_KEY: Axes = (("kv_heads", "head"), ("embed",))
_OUT: Axes = (("embed",), ("heads", "head"))
_UP: Axes = (("mlp",), ("embed",))
_DOWN: Axes = (("embed",), ("mlp",))
_ROWS: Axes = (("vocab",), ("embed",))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One parameter, or one layer's slice of it, in a checkpoint.

    key: the tensor's name; "{layer}" stands for the layer. path: our parameter. axes: our axes that make up each of the
    tensor's dimensions. start: the row at which the parameter begins, where a tensor fuses several.
    """

    key: str
    path: tuple[str, ...]
    axes: Axes
    start: int = 0

    @property
    def stacked(self) -> bool:
        """Whether there is one a layer."""
        return "{layer}" in self.key

    def name(self, layer: int | None) -> str:
        """The name of a layer's tensor; of the only one for None."""
        return self.key if layer is None else self.key.format(layer=layer)


def tensors(model_type: str, config: DecoderConfig) -> list[Tensor]:
    """All tensors of a checkpoint, in the order in which they are written."""
    block = "model.layers.{layer}."
    queries, keys = config.heads * config.head, config.kv_heads * config.head
    rows = [Tensor("model.embed_tokens.weight", ("embedding",), _ROWS)]

    def layer(key: str, name: str | tuple[str, ...], axes: Axes, start: int = 0) -> None:
        path = (name,) if isinstance(name, str) else name
        rows.append(Tensor(block + key, ("layers", *path), axes, start))

    layer("input_layernorm.weight", ("attention_norm", "scale"), _VECTOR)
    if model_type == "phi3":
        layer("self_attn.qkv_proj.weight", "query", _QUERY)
        layer("self_attn.qkv_proj.weight", "key", _KEY, queries)
        layer("self_attn.qkv_proj.weight", "value", _KEY, queries + keys)
    else:
        for name, key, axes in (("query", "q", _QUERY), ("key", "k", _KEY), ("value", "v", _KEY)):
            layer(f"self_attn.{key}_proj.weight", name, axes)
            if config.qkv_bias:
                layer(f"self_attn.{key}_proj.bias", f"{name}_bias", axes[:1])
    layer("self_attn.o_proj.weight", "out", _OUT)
    layer("post_attention_layernorm.weight", ("mlp_norm", "scale"), _VECTOR)
    if model_type == "phi3":
        layer("mlp.gate_up_proj.weight", "gate", _UP)
        layer("mlp.gate_up_proj.weight", "up", _UP, config.mlp)
    else:
        layer("mlp.gate_proj.weight", "gate", _UP)
        layer("mlp.up_proj.weight", "up", _UP)
    layer("mlp.down_proj.weight", "down", _DOWN)
    rows.append(Tensor("model.norm.weight", ("norm", "scale"), _VECTOR))
    if not config.tied:
        rows.append(Tensor("lm_head.weight", ("head",), (("head_vocab",), ("embed",))))
    return rows


def axis_sizes(config: DecoderConfig) -> dict[str, int]:
    """The length of every logical axis."""
    return {
        "vocab": config.vocabulary_size,
        "head_vocab": config.vocabulary_size,
        "embed": config.embed,
        "activation": config.embed,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head": config.head,
        "mlp": config.mlp,
    }


_NORM_EPSILON = {"llama": 1e-6, "qwen2": 1e-6, "phi3": 1e-5}  # of the families, where config.json says nothing


def read_config(fields: Mapping[str, Any], *, dtype: str, parameter_dtype: str) -> tuple[str, DecoderConfig]:
    """(model type, our configuration) from the fields of a config.json.

    Raises: ValueError, naming the key, for what this decoder does not compute.
    """
    model_type = fields.get("model_type")
    if model_type not in ARCHITECTURES:
        raise ValueError(f"model_type is {model_type!r}, expected one of {', '.join(ARCHITECTURES)}")
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if not isinstance(fields.get(key), int):
            raise ValueError(f"{key} is {fields.get(key)!r}, expected an integer")
    _refuse(fields, "hidden_act", ("silu",))
    for bias in ("mlp_bias", "attention_bias"):
        _refuse(fields, bias, (False, None))
    for where in (fields, _rope(fields)):
        _refuse(where, "partial_rotary_factor", (1.0, None))
    heads = fields["num_attention_heads"]
    return model_type, DecoderConfig(
        vocabulary_size=fields["vocab_size"],
        layers=fields["num_hidden_layers"],
        embed=fields["hidden_size"],
        heads=heads,
        kv_heads=fields.get("num_key_value_heads") or heads,
        head=fields.get("head_dim") or fields["hidden_size"] // heads,
        mlp=fields["intermediate_size"],
        tied=bool(fields.get("tie_word_embeddings", False)),
        qkv_bias=model_type == "qwen2",
        rope_theta=_theta(fields),
        rope_scaling=_scaling(fields),
        window=_window(model_type, fields),
        norm_epsilon=fields.get("rms_norm_eps", _NORM_EPSILON[model_type]),
        dtype=dtype,
        parameter_dtype=parameter_dtype,
    )


def write_config(fields: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json, after `fields` of the folder that the model came from, of this configuration."""
    return {
        **fields,
        "vocab_size": config.vocabulary_size,
        "torch_dtype": config.parameter_dtype,
        "dtype": config.parameter_dtype,
    }


def default_fields(config: DecoderConfig) -> dict[str, Any]:
    """config.json of a model that never was a Hugging Face folder. Raises: ValueError for what it could not say."""
    if config.rope_scaling is not None or config.window is not None:
        raise ValueError("DecoderConfig: rope_scaling and window are written for models that came with a config.json")
    model_type = "qwen2" if config.qkv_bias else "llama"
    return {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": config.embed,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": config.tied,
    }


def _refuse(fields: Mapping[str, Any], key: str, known: tuple) -> None:
    if fields.get(key, known[0]) not in known:
        raise ValueError(f"{key} is {fields[key]!r}, expected {known[0]!r}: nothing else is implemented")


def _rope(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """`rope_parameters`, as transformers 5 writes them; for one type of layers, where they stand by type."""
    nested = fields.get("rope_parameters") or {}
    by_type = [own for own in nested.values() if isinstance(own, Mapping)]
    if not by_type:
        return nested
    if any(own != by_type[0] for own in by_type):
        raise ValueError("rope_parameters differ between types of layers: not implemented")
    return by_type[0]


def _theta(fields: Mapping[str, Any]) -> float:
    """Beside the scaling, as transformers 5 writes it; at the top, as older ones did."""
    return float(_rope(fields).get("rope_theta") or fields.get("rope_theta") or 10_000.0)


def _scaling(fields: Mapping[str, Any]) -> Llama3Scaling | LinearScaling | None:
    scaling = _rope(fields) or fields.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    try:
        if kind == "linear":
            return LinearScaling(factor=float(scaling["factor"]))
        if kind == "llama3":
            return Llama3Scaling(
                factor=float(scaling["factor"]),
                low_frequency=float(scaling["low_freq_factor"]),
                high_frequency=float(scaling["high_freq_factor"]),
                original_length=int(scaling["original_max_position_embeddings"]),
            )
    except KeyError as error:
        raise ValueError(f"rope_scaling of type {kind!r} lacks {error}") from error
    raise ValueError(f"rope_scaling is of type {kind!r}, expected linear, llama3 or none: others are not implemented")


def _window(model_type: str, fields: Mapping[str, Any]) -> int | None:
    """The window of all layers, or None; refused where only some have one."""
    window = fields.get("sliding_window")
    if (
        window is None
        or model_type == "llama"
        or (model_type == "qwen2" and not fields.get("use_sliding_window", False))
    ):
        return None
    types = fields.get("layer_types")
    if types is not None:
        with_window = [kind == "sliding_attention" for kind in types]
    elif model_type == "qwen2":  # layers from max_window_layers on; the family's default is 28
        first = fields.get("max_window_layers", 28)
        with_window = [layer >= first for layer in range(fields["num_hidden_layers"])]
    else:
        with_window = [True]
    if any(with_window) and not all(with_window):
        raise ValueError("sliding_window is for some layers only (layer_types or max_window_layers): not implemented")
    return int(window) if any(with_window) else None
