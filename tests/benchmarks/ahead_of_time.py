"""What benchmarks of programs that are compiled ahead of time for TPUs share. Needs libtpu; no TPU is used."""

import dataclasses
import os
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it takes no TPU from another process

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

import gin  # noqa: E402
from rstar_jax import configuration  # noqa: E402
from rstar_jax.models import DecoderConfig  # noqa: E402


def model(name: str, **changes: Any) -> DecoderConfig:
    """A model of gin/models, with some fields changed."""
    gin.clear_config()
    configuration.parse([f"models/{name}.gin"], [])
    return dataclasses.replace(gin.get_configurable(DecoderConfig)(), **changes)


def devices(topology: str) -> list:
    """The chips of a topology such as v5e:4x4."""
    bounds = [1, 1, 1] if topology.endswith("1x1") else [2, 2, 1]
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, chips_per_host_bounds=bounds)
    return list(found.devices)


def memory(program: jax.stages.Compiled) -> dict[str, int]:
    """The bytes of a chip that a program needs."""
    found = program.memory_analysis()
    peak = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return {
        "argument_bytes": found.argument_size_in_bytes,
        "temporary_bytes": found.temp_size_in_bytes,
        "peak_bytes": peak - found.alias_size_in_bytes,
    }
