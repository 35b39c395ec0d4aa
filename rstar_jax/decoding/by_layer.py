"""The programs of a deep model on one CPU, layer by layer: the host calls one program, compiled once, for every layer.

XLA compiles a decoder whose layers have arrays of their own (`DecoderConfig.stacked`) layer after layer: half a minute
for 24 layers and the few shapes of a small batch, which is then decoded in less. What `decode.chunk` and
`extend.extend` are made of is run piece by piece here instead. A call costs the host a tenth of a millisecond, a layer
that is too large for a core's caches several.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rstar_jax.decoding import cache as pool
from rstar_jax.decoding import decode, extend
from rstar_jax.decoding.cache import Cache
from rstar_jax.decoding.sampling import Sampling
from rstar_jax.decoding.shards import SHARD, counted
from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel
from rstar_jax.models.decoder import FEW_LAYERS, Layer
from rstar_jax.models.parameters import Parameters, bind
from rstar_jax.partitioning import spec

_WHOLE = PartitionSpec()
_RING = spec("batch", "kv_heads")  # of one layer
_LANES = decode.Lanes(**dict.fromkeys(decode.Lanes._fields, SHARD) | {"ring": None})


def applies(config: DecoderConfig, mesh: Mesh) -> bool:
    """Whether a model's programs are run layer by layer."""
    return not config.stacked and config.layers > FEW_LAYERS and mesh.size == 1


def _program(*static: str, donate: tuple[str, ...] = (), outputs: Any = _WHOLE):
    """Jits a piece of a program for each mesh, its first argument then.

    outputs: partition specs, as of `shards.on_shards`: what goes in again is laid out as at first, and nothing is
    compiled twice.
    """

    def jitted(piece):
        @functools.cache
        def on(mesh: Mesh):
            def place(own: PartitionSpec) -> NamedSharding:
                return NamedSharding(mesh, own)

            where = jax.tree.map(place, outputs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
            return counted(jax.jit(piece, static_argnames=static, donate_argnames=donate, out_shardings=where))

        return lambda mesh, *arguments: on(mesh)(*arguments)

    return jitted


def chunk(
    mesh: Mesh,
    config: DecoderConfig,
    shape: decode.Shape,
    sampling: Sampling,
    parameters: Parameters,
    cache: Cache,
    nodes: decode.Nodes,
    lanes: decode.Lanes,
    finished: decode.Finished,
    endings: jax.Array,
    vocabulary: jax.Array,
) -> tuple[decode.Lanes, decode.Finished, jax.Array]:
    """As `decode.chunk`."""
    layers, rest = _apart(parameters)
    ring, lanes = list(lanes.ring), lanes._replace(ring=None)
    prefix = [_gather(mesh, cache, nodes.table, i) for i in range(config.layers)]
    draws, valid, positions, lanes, finished = _begin(
        mesh, config, shape, sampling, rest, cache, nodes, lanes, finished, endings, vocabulary
    )
    computed, steps = jax.device_put(np.int32(0), NamedSharding(mesh, _WHOLE)), 0
    while steps < shape.steps and np.any(np.asarray(lanes.sample) >= 0):
        x, angles, mask, kept = _embed(mesh, config, shape, rest, draws, valid, positions, lanes)
        for i, own in layers.items():
            x, ring[i] = _decode_layer(mesh, config, own, x, angles, mask, kept, lanes.slot, prefix[i], ring[i])
        lanes, finished, computed = _advance(mesh, config, shape, sampling, rest, draws, lanes, finished, x, computed)
        steps += 1
    return lanes._replace(ring=ring), finished, np.array([[steps, computed]], np.int32)


@_program()
def _gather(cache: Cache, table: jax.Array, layer: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys [M, K, H, P], as a product with few queries reads them fastest, and values [M, K, P, H]."""
    keys, values = pool.gather_layer(cache, table, layer)
    return keys.swapaxes(-1, -2), values


@_program("config", "shape", "sampling", donate=("lanes", "finished"), outputs=(_WHOLE, _WHOLE, _WHOLE, _LANES, SHARD))
def _begin(config, shape, sampling, rest, cache, nodes, lanes, finished, endings, vocabulary):
    draws = decode.look_ahead(shape, cache, nodes, endings, vocabulary)
    valid, positions = pool.places(nodes.fill, cache.pages.shape[-2])
    decoder = _bind(Decoder, config, rest)
    return draws, valid, positions, *decode.begin(decoder, shape, sampling, draws, nodes, lanes, finished)


@_program("config", "shape")
def _embed(config, shape, rest, draws, valid, positions, lanes):
    position = draws.start + lanes.count - 1
    mask = decode.prefix_mask(config, shape, valid, positions, position)
    x, angles = _bind(Decoder, config, rest).embed(lanes.token[:, None], position[:, None])
    return x, angles, mask, lanes.count - 1


@_program("config", donate=("ring",), outputs=(_WHOLE, _RING))
def _decode_layer(config, own, x, angles, mask, kept, slot, prefix, ring):
    keys, values = prefix
    attend = decode.attend_to(config, mask, kept, slot[0])
    return bind(Layer, config, own)(x, angles, attend, ((keys.swapaxes(-1, -2), values), ring))


@_program("config", "shape", "sampling", donate=("lanes", "finished"), outputs=(_LANES, SHARD, _WHOLE))
def _advance(config, shape, sampling, rest, draws, lanes, finished, x, computed):
    decoder = _bind(Decoder, config, rest)
    hidden = decoder.norm(x)[:, 0]
    lanes, finished, busy = decode.advance(decoder, shape, sampling, draws, lanes, finished, hidden)
    return lanes, finished, computed + busy


def encode(
    mesh: Mesh,
    kind: type[nnx.Module],
    config: DecoderConfig,
    parameters: Parameters,
    cache: Cache,
    table: jax.Array,
    fill: jax.Array,
    tokens: jax.Array,
    own_fill: jax.Array,
    destination: jax.Array,
) -> tuple[Cache, jax.Array]:
    """As `extend.extend`."""
    layers, rest = _apart(parameters)
    rows, x, angles = _lay_out(mesh, kind, config, rest, cache, fill, tokens, own_fill)
    segment = []
    for i, own in layers.items():
        x, kept = _encode_layer(mesh, config, own, x, angles, rows, cache, table, i)
        segment.append(kept)
    return _finish(mesh, kind, config, rest, cache, segment, rows, destination, x)


@_program("kind", "config")
def _lay_out(kind, config, rest, cache, fill, tokens, own_fill):
    page = cache.pages.shape[-2]
    rows = extend.lay_out(config, *pool.places(fill, page), tokens, own_fill, page)
    model = _bind(kind, config, rest)
    decoder = model.decoder if kind is PreferenceModel else model
    return rows, *decoder.embed(rows.tokens, rows.positions)


@_program("config")
def _encode_layer(config, own, x, angles, rows, cache, table, layer):
    prefix = pool.gather_layer(cache, table, layer)
    return bind(Layer, config, own)(x, angles, extend.attend_to(rows), prefix)


@_program("kind", "config", donate=("cache",), outputs=(pool.specs(), SHARD))
def _finish(kind, config, rest, cache, segment, rows, destination, x):
    model = _bind(kind, config, rest)
    decoder = model.decoder if kind is PreferenceModel else model
    cache = pool.store(cache, segment, destination.reshape(x.shape[0], -1))
    return extend.finish(model, cache, rows, destination, decoder.norm(x))


def _apart(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """(those of the layers, all others)."""
    if "decoder" in parameters:
        layers, rest = _apart(parameters["decoder"])
        return layers, {**parameters, "decoder": rest}
    return parameters["layers"], {**parameters, "layers": {}}


def _bind(kind: type[nnx.Module], config: DecoderConfig, rest: Parameters) -> nnx.Module:
    """The module without its layers."""
    return bind(kind, dataclasses.replace(config, layers=0), rest)
