"""The decode program compiled ahead of time for TPUs, on this machine's CPU: what it holds. One JSON line each.

    JAX_PLATFORMS=cpu python -m tests.benchmarks.tpu_programs [--only=NAME]

Needs libtpu (the extra `tpu`); no TPU is used. Bytes are a chip's. `peak_bytes` is what the compiler needs to run it,
`largest_gather_bytes` the result of the largest all-gather or all-to-all. `loops` are the trips of all loops (null: of
the decode steps), `row_loops` counts those with one trip, or some, for every node or row. `step_hbm_bytes` is what one
decode step moves to and from HBM, `hbm_ratio` that by the bytes that it cannot do without; `step_collectives` has (how
often, bytes) of its exchanges with other chips. `once_hbm_bytes` is moved besides, once a chunk.
"""

import argparse
import dataclasses
import json
import math
import time

from tests.benchmarks import ahead_of_time, hlo  # before JAX, which asks the environment when it is imported

# isort: split

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rstar_jax.decoding import batch, cache, decode
from rstar_jax.decoding.sampling import Sampling
from rstar_jax.decoding.shards import SHARD, shards
from rstar_jax.models import Decoder, DecoderConfig, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model on a topology: nodes and lanes of one data shard."""

    model: str
    topology: str
    tensor: int
    nodes: int
    lanes: int
    prefix: int = 1024

    @property
    def shape(self) -> decode.Shape:
        """What its program is compiled for."""
        return decode.Shape(nodes=self.nodes, lanes=self.lanes, samples=SAMPLES, room=ROOM, steps=STEPS, ending=1)


CASES = {
    "7b-v5e": Case(model="qwen2.5_math_7b", topology="v5e:2x4", tensor=4, nodes=32, lanes=8),
    "1.5b-v5e": Case(model="qwen2.5_math_1.5b", topology="v5e:2x2", tensor=2, nodes=32, lanes=8),
    "phi3-v5e": Case(model="phi3_mini", topology="v5e:2x4", tensor=8, nodes=32, lanes=8),
    "7b-v6e": Case(model="qwen2.5_math_7b", topology="v6e:2x2", tensor=4, nodes=64, lanes=8),
}
PAGE, SAMPLES, ROOM, STEPS, POOL_TOKENS = 16, 16, 224, 32, 65_536


def compiled(case: Case):
    """The program of one chunk; also the model and the mesh that it was compiled for."""
    config = ahead_of_time.model(case.model, dtype="bfloat16", parameter_dtype="bfloat16")
    mesh = make_mesh(MeshConfig(tensor=case.tensor), ahead_of_time.devices(case.topology))
    shape, count = case.shape, shards(mesh)

    def array(spec: PartitionSpec, dtype, *size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size, dtype, sharding=NamedSharding(mesh, spec))

    pages = count * POOL_TOKENS // PAGE
    size = (pages, config.layers, 2, config.kv_heads, PAGE, config.head)
    specs = cache.specs()
    pool = cache.Cache(array(specs.pages, jnp.bfloat16, *size), array(specs.hidden, jnp.bfloat16, pages, config.embed))
    places, width = count * case.nodes, case.prefix // PAGE
    nodes = decode.Nodes(
        table=array(SHARD, jnp.int32, places, width),
        fill=array(SHARD, jnp.int32, places, width),
        last_page=array(SHARD, jnp.int32, places),
        keys=array(SHARD, jnp.uint32, places, 2),
        fresh=array(SHARD, jnp.bool_, places),
    )
    policy = parameters.abstract(Decoder, config, mesh)
    none = PartitionSpec()
    with jax.set_mesh(mesh):
        lanes, finished = jax.eval_shape(batch._idle(config, shape, mesh))
        program = batch._chunk(config, shape, Sampling(), mesh)
        arguments = (policy, pool, nodes, lanes, finished, array(none, jnp.int32, 8, 1), array(none, jnp.int32))
        return program.lower(*arguments).compile(), config, mesh


def figures(case: Case) -> dict:
    """What the compiler says of one case."""
    start = time.perf_counter()
    program, config, mesh = compiled(case)
    seconds = time.perf_counter() - start
    line = {"rows": shards(mesh) * case.nodes * case.lanes, "compile_seconds": seconds} | ahead_of_time.memory(program)
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError:
        return line  # the compiler cannot print it for this topology
    return line | moved(case, hlo.parse(text), config, mesh)


def moved(case: Case, program: hlo.Program, config: DecoderConfig, mesh: Mesh) -> dict:
    """What the text of a program says: its loops, and the bytes that it moves."""
    loops = [hlo.trips(program, loop) for loop in hlo.instructions(program, "while")]
    others = [count for count in loops if count is not None]
    if config.layers in others:
        others.remove(config.layers)  # once: it may be the number of nodes too
    gathers = hlo.instructions(program, "all-gather", "all-to-all")
    step = hlo.iteration(program)
    size, ideal = sum(move.bytes for move in step), ideal_step_bytes(case, config, mesh)
    return {
        "loops": loops,
        "row_loops": sum(count % case.nodes == 0 for count in others),
        "largest_gather_bytes": max((gather.bytes for gather in gathers), default=0),
        "step_collectives": hlo.collectives(step),
        "step_hbm_bytes": size,
        "ideal_step_hbm_bytes": ideal,
        "hbm_ratio": size / ideal,
        "once_hbm_bytes": sum(move.bytes for move in hlo.once(program)),
    }


def ideal_step_bytes(case: Case, config: DecoderConfig, mesh: Mesh) -> int:
    """What a decode step has to move on one chip: it reads weights, prefixes and the ring, and writes a slot of it."""

    def size(array: jax.ShapeDtypeStruct) -> int:
        return math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize

    policy = parameters.abstract(Decoder, config, mesh)
    weights = sum(map(size, jax.tree.leaves(policy)))
    if not config.tied:
        weights -= size(policy["embedding"])  # a few rows of it are read
    token = 2 * config.layers * config.kv_heads * config.head * config.jax_dtype.itemsize // case.tensor
    rows = case.nodes * case.lanes
    return weights + token * (case.nodes * case.prefix + rows * case.shape.ring + rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=list(CASES))
    flags = parser.parse_args()
    for name, case in CASES.items():
        if flags.only in (None, name):
            print(json.dumps({"program": f"chunk {name}", **dataclasses.asdict(case), **figures(case)}), flush=True)


if __name__ == "__main__":
    main()
