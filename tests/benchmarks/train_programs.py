"""Train steps compiled ahead of time for TPUs, on this machine's CPU: whether they fit. One JSON line each.

    JAX_PLATFORMS=cpu python -m tests.benchmarks.train_programs [--only=NAME]

Needs libtpu (the extra `tpu`); no TPU is used. Bytes are a chip's. `peak_bytes` is what the compiler needs to run the
step, `hbm_share` that by what a chip has. `collectives` has (how often, bytes) of the exchanges of a step by kind,
`largest_exchange_bytes` the largest of them, `layer_bytes` the fp32 parameters of one layer. `seconds` are the least
that matrix products, and exchanges over the links of a chip, take: the larger one bounds the step, and `mfu_bound` is
the share of the peak that this leaves, recomputation of layers counted.
"""

import argparse
import dataclasses
import functools
import json
import math
import time

from tests.benchmarks import ahead_of_time, hlo  # before JAX, which asks the environment when it is imported

# isort: split

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rstar_jax.models import Decoder, DecoderConfig, Lora, PreferenceModel, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh, sharding
from rstar_jax.training import ProgramConfig, TrainingConfig, losses, step, throughput


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A training on a topology: rows of a microbatch, all chips together."""

    model: str
    topology: str
    fsdp: int
    rows: int
    length: int = 4096
    kind: str = "sft"
    remat: str = "layer"
    lora: int | None = None
    loss_chunk: int = 512
    parts: int = 1


CASES = {
    "7b-sft-v5e-16": Case(model="qwen2.5_math_7b", topology="v5e:4x4", fsdp=16, rows=16),
    "7b-sft-v5e-64": Case(model="qwen2.5_math_7b", topology="v5e:8x8", fsdp=64, rows=64),
    "7b-sft-v6e-8": Case(model="qwen2.5_math_7b", topology="v6e:2x4", fsdp=8, rows=8),
    "7b-ppm-v5e-16": Case(model="qwen2.5_math_7b", topology="v5e:4x4", fsdp=16, rows=16, kind="ppm"),
    "1.5b-sft-v5e-8": Case(model="qwen2.5_math_1.5b", topology="v5e:2x4", fsdp=8, rows=8),
    "1.5b-lora-v5e-1": Case(model="qwen2.5_math_1.5b", topology="v5e:1x1", fsdp=1, rows=1, lora=16),
    "phi3-sft-v5e-16": Case(model="phi3_mini", topology="v5e:4x4", fsdp=16, rows=16),
}
# Of a chip: HBM that a program has; bytes a second over its links, both directions of all of them; operations a second.
HBM = {"v5e": 15.75 * 2**30, "v6e": 31.25 * 2**30}
LINKS = {"v5e": 200e9, "v6e": 448e9}
PEAK = {"v5e": throughput.PEAK["TPU v5e"], "v6e": throughput.PEAK["TPU v6e"]}
PAIRS = 16  # of a row


def model_of(case: Case) -> DecoderConfig:
    """The model as it is trained: bf16 over fp32 parameters."""
    lora = None if case.lora is None else Lora(rank=case.lora)
    return ahead_of_time.model(case.model, dtype="bfloat16", parameter_dtype="float32", lora=lora)


def compiled(case: Case, effort: float = -1.0):
    """The train step; also the model and the mesh that it was compiled for."""
    model = model_of(case)
    mesh = make_mesh(MeshConfig(data=1, fsdp=case.fsdp), ahead_of_time.devices(case.topology)[: case.fsdp])
    attention = "splash" if case.kind == "sft" else "xla"
    program = ProgramConfig(remat=case.remat, attention=attention, loss_chunk=case.loss_chunk)
    config = TrainingConfig(steps=1, batch=1, learning_rate=1e-5)
    kind, loss = (Decoder, losses.policy_loss) if case.kind == "sft" else (PreferenceModel, losses.preference_loss)
    trained = parameters.is_trained if case.lora is None else parameters.is_adapted
    learned, frozen = parameters.split(parameters.abstract(kind, model, mesh), trained)
    if case.lora is not None:
        frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), frozen)

    def array(dtype, *size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((case.parts, *size), dtype, sharding=sharding(mesh, None, "batch"))

    shape = case.rows, case.length
    batch = {name: array(jnp.int32, *shape) for name in ("tokens", "segments", "positions")}
    if case.kind == "sft":
        batch["learn"] = array(jnp.bool_, *shape)
    else:
        batch["branches"] = array(jnp.int32, *shape)
        places = {"chosen": jnp.int32, "rejected": jnp.int32, "weight": jnp.float32}
        batch |= {name: array(dtype, case.rows, PAIRS) for name, dtype in places.items()}
    with jax.set_mesh(mesh):
        own = functools.partial(loss, model, program)
        state, _, update = step.programs(own, config, mesh, step.Abstract(learned))
        lowered = update.lower(learned, state, frozen, batch, 1, 1e-5)
        options = {"exec_time_optimization_effort": effort}
        return lowered.compile(compiler_options=options), model, mesh


def figures(case: Case) -> dict:
    """What the compiler says of one case."""
    start = time.perf_counter()
    program, model, mesh = compiled(case)
    chip = case.topology.partition(":")[0]
    line = {"compile_seconds": time.perf_counter() - start} | ahead_of_time.memory(program)
    line |= {"hbm_share": line["peak_bytes"] / HBM[chip], "layer_bytes": layer_bytes(case, model, mesh)}
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError:
        return line  # the compiler cannot print it for this topology
    moves = hlo.once(hlo.parse(text))
    exchanged = hlo.collectives(moves)
    rows = {"segments": np.ones((case.rows, case.length), np.int32), "learn": True}
    needed = throughput.operations(model, rows if case.kind == "sft" else {"segments": rows["segments"]})
    again = 4 / 3 if case.remat == "layer" else 1.0  # a forward pass more
    seconds = {
        "products": again * needed / case.fsdp / PEAK[chip],
        "exchanges": sum(size for _, size in exchanged.values()) / LINKS[chip],
    }
    return line | {
        "collectives": exchanged,
        "largest_exchange_bytes": max(
            (move.instruction.bytes for move in moves if move.instruction.opcode.removesuffix("-done") in exchanged),
            default=0,
        ),
        "seconds": seconds,
        "mfu_bound": needed / case.fsdp / PEAK[chip] / max(seconds.values()),
    }


def layer_bytes(case: Case, model: DecoderConfig, mesh: Mesh) -> int:
    """The fp32 parameters of one layer, of all chips."""
    layers = parameters.abstract(Decoder, model, mesh)["layers"]
    return sum(4 * math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(layers))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=list(CASES))
    flags = parser.parse_args()
    for name, case in CASES.items():
        if flags.only in (None, name):
            print(json.dumps({"program": name, **dataclasses.asdict(case), **figures(case)}), flush=True)


if __name__ == "__main__":
    main()
