"""The decode program compiled ahead of time for TPUs, on this machine's CPU: what it holds. One JSON line each.

    JAX_PLATFORMS=cpu python -m tests.benchmarks.tpu_programs [--only=NAME]

Needs libtpu (the extra `tpu`); no TPU is used. Bytes are a chip's. `peak_bytes` is what the compiler needs to run it,
`row_loops` counts loops with one trip a row (or a node), `loops` all whose trips the compiler knows;
`largest_gather_bytes` is the largest all-gather or all-to-all, at four bytes an element.
"""

import argparse
import dataclasses
import json
import os
import re
import time

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

import gin  # noqa: E402
from rstar_jax import configuration  # noqa: E402
from rstar_jax.decoding import batch, cache, decode  # noqa: E402
from rstar_jax.decoding.sampling import Sampling  # noqa: E402
from rstar_jax.decoding.shards import SHARD, shards  # noqa: E402
from rstar_jax.models import Decoder, DecoderConfig, parameters  # noqa: E402
from rstar_jax.partitioning import MeshConfig, make_mesh  # noqa: E402


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model on a topology: nodes and lanes of one data shard."""

    model: str
    topology: str
    tensor: int
    nodes: int
    lanes: int
    prefix: int = 1024


CASES = {
    "7b-v5e": Case(model="qwen2.5_math_7b", topology="v5e:2x4", tensor=4, nodes=32, lanes=8),
    "1.5b-v5e": Case(model="qwen2.5_math_1.5b", topology="v5e:2x2", tensor=2, nodes=32, lanes=8),
    "phi3-v5e": Case(model="phi3_mini", topology="v5e:2x4", tensor=8, nodes=32, lanes=8),
    "7b-v6e": Case(model="qwen2.5_math_7b", topology="v6e:2x2", tensor=4, nodes=64, lanes=8),
}
PAGE, SAMPLES, ROOM, STEPS, POOL_TOKENS = 16, 16, 224, 32, 65_536


def compiled(case: Case):
    """The program of one chunk; also the model and the mesh that it was compiled for."""
    gin.clear_config()
    configuration.parse([f"models/{case.model}.gin"], [])
    config = gin.get_configurable(DecoderConfig)()
    config = dataclasses.replace(config, dtype="bfloat16", parameter_dtype="bfloat16")
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=case.topology, chips_per_host_bounds=[2, 2, 1]
    )
    mesh = make_mesh(MeshConfig(tensor=case.tensor), list(topology.devices))
    shape = decode.Shape(nodes=case.nodes, lanes=case.lanes, samples=SAMPLES, room=ROOM, steps=STEPS, ending=1)
    count = shards(mesh)

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
    memory = program.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    line = {
        "rows": shards(mesh) * case.nodes * case.lanes,
        "compile_seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": peak - memory.alias_size_in_bytes,
    }
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError:
        return line  # the compiler cannot print it for this topology
    rows = case.nodes * case.lanes
    trips = [int(n) for n in re.findall(r'known_trip_count":\{"n":"(\d+)"', text)]
    line["loops"] = len(trips)
    line["row_loops"] = sum(trip in (rows, case.nodes) for trip in trips)
    gathers = re.findall(r"= (\w+)\[([\d,]*)\]\S* (?:all-gather|all-to-all)(?:-start)?\(", text)
    line["largest_gather_bytes"] = max(
        (int(np.prod([int(n) for n in size.split(",") if n] or [1])) * 4 for _, size in gathers), default=0
    )
    return line


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=list(CASES))
    flags = parser.parse_args()
    for name, case in CASES.items():
        if flags.only in (None, name):
            print(json.dumps({"program": f"chunk {name}", **dataclasses.asdict(case), **figures(case)}), flush=True)


if __name__ == "__main__":
    main()
