"""Adapters of a model (`config.Lora`): put beside its matrices, merged into them, and kept alone."""

import dataclasses
import functools
import json
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from safetensors.numpy import save_file

from rstar_jax import files
from rstar_jax.models import layouts, parameters, transfer
from rstar_jax.models.config import LINEAR, Lora
from rstar_jax.models.decoder import LORA_A, LORA_B, Decoder
from rstar_jax.models.hub import Policy, Preference
from rstar_jax.partitioning import processes

Model = TypeVar("Model", Policy, Preference)


def with_adapters(model: Model, lora: Lora, seed: int) -> Model:
    """`model` with fresh adapters, fp32, which change nothing yet."""
    config = dataclasses.replace(model.config, lora=lora, parameter_dtype="float32")
    where, _ = parameters.split(parameters.shardings(Decoder, config, model.mesh), parameters.is_adapted)

    def make():
        _, state = nnx.split(Decoder(config, rngs=nnx.Rngs(seed)))
        return parameters.split(nnx.to_pure_dict(state), parameters.is_adapted)[0]

    adapters = jax.jit(make, out_shardings=where)()
    config = dataclasses.replace(config, parameter_dtype=model.config.parameter_dtype)
    return dataclasses.replace(_with_decoder(model, parameters.merge(_decoder(model), adapters)), config=config)


def merged(model: Model) -> Model:
    """`model` without adapters: each is added to its matrix, in fp32, and rounded once."""
    config = dataclasses.replace(model.config, lora=None)
    where = parameters.shardings(Decoder, config, model.mesh)
    add = jax.jit(functools.partial(_merged, model.config.lora), out_shardings=where)
    return dataclasses.replace(_with_decoder(model, add(_decoder(model))), config=config)


def _merged(lora: Lora, decoder: parameters.Parameters) -> parameters.Parameters:
    layers = {name: leaf for name, leaf in decoder["layers"].items() if not name.endswith((LORA_A, LORA_B))}
    for name in lora.targets:
        matrix, a, b = (decoder["layers"][f"{name}{side}"] for side in ("", LORA_A, LORA_B))
        depth = matrix.shape[0]
        a, b = a.reshape(depth, -1, lora.rank), b.reshape(depth, lora.rank, -1)
        product = jnp.einsum("lir,lro->lio", a, b, precision="highest").reshape(matrix.shape)
        layers[name] = (matrix.astype(jnp.float32) + lora.scale * product).astype(matrix.dtype)
    return {**decoder, "layers": layers}


def save(model: Policy | Preference, folder: epath.PathLike, base: str) -> None:
    """The adapters alone, as the PEFT library reads them beside the model `base`.

    Where a checkpoint fuses matrices (Phi-3), their adapters become one: its A has the rows of theirs, its B has theirs
    as blocks of the diagonal, its rank is the sum of theirs.
    """
    folder, lora = epath.Path(folder), model.config.lora
    layers = _decoder(model)["layers"]
    modules: dict[str, list[layouts.Tensor]] = {}  # by the name of the tensor, in the order of its rows
    for row in layouts.tensors(model.fields["model_type"], model.config):
        if row.path[-1] in LINEAR:
            modules.setdefault(row.key, []).append(row)
    tensors, ranks = {}, {}
    for key, rows in modules.items():
        names = [row.path[-1] for row in rows if row.path[-1] in lora.targets]
        if not names:
            continue
        sides = [
            [transfer.fetch(layers[f"{name}{side}"]).astype(np.float32) for name in names] for side in (LORA_A, LORA_B)
        ]
        for layer in range(model.config.layers):
            a = [own[layer].reshape(-1, lora.rank) for own in sides[0]]
            b = dict(zip(names, (own[layer].reshape(lora.rank, -1) for own in sides[1]), strict=True))
            width = {row.path[-1]: math.prod(layers[row.path[-1]].shape[1:]) // len(a[0]) for row in rows}
            blocks = [
                [
                    b[name] if name == row.path[-1] else np.zeros((lora.rank, width[row.path[-1]]), np.float32)
                    for row in rows
                ]
                for name in names
            ]
            whole = {"lora_A": np.concatenate(a, axis=1), "lora_B": np.block(blocks)}
            for side, value in whole.items():
                name = f"base_model.model.{rows[0].name(layer).removesuffix('weight')}{side}.weight"
                tensors[name] = np.ascontiguousarray(value.T)
        ranks[key.split(".")[-2]] = lora.rank * len(names)
    if not processes.is_first():
        return
    with files.staged(folder / "adapter_model.safetensors") as local:
        save_file(tensors, local, metadata={"format": "pt"})
    fused = {name: rank for name, rank in ranks.items() if rank != lora.rank}
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "rank_pattern": fused,
        "alpha_pattern": {name: lora.scale * rank for name, rank in fused.items()},
        "lora_dropout": lora.dropout,
        "target_modules": list(ranks),
        "bias": "none",
    }
    files.publish(folder / "adapter_config.json", json.dumps(fields, indent=2))


def _decoder(model: Policy | Preference) -> parameters.Parameters:
    return model.parameters if isinstance(model, Policy) else model.parameters["decoder"]


def _with_decoder(model: Model, decoder: parameters.Parameters) -> Model:
    own = decoder if isinstance(model, Policy) else {**model.parameters, "decoder": decoder}
    return dataclasses.replace(model, parameters=own)
