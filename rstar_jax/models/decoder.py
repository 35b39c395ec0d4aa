"""The decoder, and the process preference model that shares its body.

Modules say what there is; at run time `nnx.split` gives (graphdef, parameters) once and pure functions run under
`jax.jit`. Layers are stacked on a leading axis and scanned. Letters: B batch, T time, D embed, N query heads, K
key-value heads, G = N / K, H head size, F feed-forward, V vocabulary, L layers.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from rstar_jax.models import rotary
from rstar_jax.models.config import LINEAR, DecoderConfig
from rstar_jax.partitioning import constrain, spec

FEW_LAYERS = 4  # unrolled: XLA on CPU copies each slice of a stack, a quarter of a train step of three layers
_FEW_ROWS = 96  # of a product whose time is that of reading its weight, more or less

LORA_A, LORA_B = "_lora_a", "_lora_b"  # behind the name of a matrix
ATTENTION_OUT = "attention_out"
REMAT = {  # what is kept of a layer for its backward pass
    "none": None,  # all that it needs
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION_OUT),  # and its input
    "layer": jax.checkpoint_policies.nothing_saveable,  # its input alone
}

Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class _Init:
    """Makes the parameters of one configuration: all in its dtype, each with its logical axes."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs | None = None):
        self.dtype, self.rngs = jnp.dtype(config.parameter_dtype), rngs

    def normal(self, scale: float, **axes: int) -> nnx.Param:
        return self._parameter(scale * jax.random.normal(self.rngs.params(), tuple(axes.values())), axes)

    def constant(self, value: float, **axes: int) -> nnx.Param:
        return self._parameter(jnp.full(tuple(axes.values()), value), axes)

    def _parameter(self, value: jax.Array, axes: dict[str, int]) -> nnx.Param:
        return nnx.Param(value.astype(self.dtype), axes=tuple(axes))


class RMSNorm(nnx.Module):
    """Root mean square normalisation, in fp32."""

    def __init__(self, config: DecoderConfig):
        self.scale = _Init(config).constant(1.0, activation=config.embed)
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D]."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * self.scale[...].astype(jnp.float32)).astype(x.dtype)


def _as_precise_as_its_dtype(method: Callable) -> Callable:
    """Of a module with a `config`: in float32 its products (and their gradients) are of float32.

    TPUs would round their factors to bf16, and GPUs to TF32. In other dtypes there is nothing to lose.
    """

    @functools.wraps(method)
    def precise(self, *args, **kwargs):
        if self.config.jax_dtype != jnp.float32:
            return method(self, *args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return method(self, *args, **kwargs)

    return precise


@jax.custom_vjp
def _linear(x: jax.Array, weight: jax.Array) -> jax.Array:
    """[..., D] by [D, F] -> [..., F].

    The weight's gradient is the product of x, turned around, and the gradient as it lies. Of itself JAX turns the
    gradient around, and XLA on CPU then computes what it is made of column by column: an eighth to a fifth of
    the time of a gradient.
    """
    return x @ weight


def _linear_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    rows = tuple(range(x.ndim - 1))
    # The backward pass is traced after `_as_precise_as_its_dtype` has been left.
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    before = jnp.matmul(gradient, weight.T, precision=precision)
    return before, jax.lax.dot_general(x, gradient, ((rows, rows), ((), ())), precision=precision)


_linear.defvjp(lambda x, weight: (x @ weight, (x, weight)), _linear_backward)


@jax.checkpoint
def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """SwiGLU; computed again in the backward pass, for the same reason as attention."""
    return jax.nn.silu(gate) * up


def _turned_linear(x: jax.Array, weight: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """[..., D] by [F, D] -> [..., F] in `dtype`, with the weight on the left (see `DecoderConfig.turned`)."""
    rows = x.reshape(-1, x.shape[-1])
    product = jnp.matmul(weight, rows.T, preferred_element_type=dtype)
    if rows.shape[0] <= _FEW_ROWS:
        product = jax.lax.optimization_barrier(product)  # or XLA turns the product around, the weight on the right
    return product.T.reshape(*x.shape[:-1], weight.shape[0])


def _dropped(x: jax.Array, rate: float, keys: jax.Array, salt: int) -> jax.Array:
    """x [B, T, D] with a share of zeros, the rest larger; each row by its own key [B], whoever else is in the batch."""

    def row(key: jax.Array, own: jax.Array) -> jax.Array:
        kept = jax.random.bernoulli(jax.random.fold_in(key, salt), 1 - rate, own.shape)
        return jnp.where(kept, own / (1 - rate), 0).astype(own.dtype)

    return jax.vmap(row)(keys, x)


class Layer(nnx.Module):
    """One decoder layer: attention, then a gated feed-forward block, each on a normalised residual stream."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.config = c
        deep = (2 * c.layers) ** -0.5  # keeps the residual stream's variance independent of depth
        self.attention_norm, self.mlp_norm = RMSNorm(c), RMSNorm(c)
        init = _Init(c, rngs)
        inwards = c.embed**-0.5

        def matrix(scale: float, inputs: dict[str, int], outputs: dict[str, int]) -> nnx.Param:
            return init.normal(scale, **(outputs | inputs if c.turned else inputs | outputs))

        embed, mlp, heads = {"embed": c.embed}, {"mlp": c.mlp}, {"heads": c.heads, "head": c.head}
        kv_heads = {"kv_heads": c.kv_heads, "head": c.head}
        self.query = matrix(inwards, embed, heads)
        self.key, self.value = matrix(inwards, embed, kv_heads), matrix(inwards, embed, kv_heads)
        if c.qkv_bias:
            self.query_bias = init.constant(0.0, heads=c.heads, head=c.head)
            self.key_bias = init.constant(0.0, kv_heads=c.kv_heads, head=c.head)
            self.value_bias = init.constant(0.0, kv_heads=c.kv_heads, head=c.head)
        self.out = matrix((c.heads * c.head) ** -0.5 * deep, heads, embed)
        self.gate, self.up = matrix(inwards, embed, mlp), matrix(inwards, embed, mlp)
        self.down = matrix(c.mlp**-0.5 * deep, mlp, embed)
        if c.lora is not None:  # B begins as zero, so that a model with fresh adapters is the one without
            sides = {name: (embed, heads) for name in ("query",)} | {
                name: (embed, kv_heads) for name in ("key", "value")
            }
            sides |= {"out": (heads, embed), "gate": (embed, mlp), "up": (embed, mlp), "down": (mlp, embed)}
            for name in c.lora.targets:
                inputs, outputs = sides[name]
                fan = math.prod(inputs.values())
                setattr(self, f"{name}{LORA_A}", init.normal(fan**-0.5, **inputs, rank=c.lora.rank))
                setattr(self, f"{name}{LORA_B}", init.constant(0.0, rank=c.lora.rank, **outputs))

    @_as_precise_as_its_dtype
    def __call__(
        self,
        x: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        attend: Attend,
        cache: Any,
        noise: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """x [B, T, D] -> x [B, T, D] and what `attend` keeps: this segment's keys and values [B, K, T, H], mostly.

        noise: a key a row [B], of the dropout before adapters; None: nothing is dropped.
        """
        c, dtype = self.config, x.dtype
        h = self.attention_norm(x)
        product = functools.partial(self._product, noise=noise)
        query = product(h, "query", c.heads, c.head)
        key, value = (product(h, name, c.kv_heads, c.head) for name in ("key", "value"))
        if c.qkv_bias:
            query = query + self.query_bias[...].astype(dtype)
            key = key + self.key_bias[...].astype(dtype)
            value = value + self.value_bias[...].astype(dtype)
        query, key = rotary.rotate(query, angles), rotary.rotate(key, angles)
        query = query.reshape(*query.shape[:2], c.kv_heads, c.heads // c.kv_heads, c.head).swapaxes(1, 2)
        key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
        o, kept = attend(query, key, value, cache)
        o = checkpoint_name(o.astype(dtype), ATTENTION_OUT)
        o = o.swapaxes(1, 2).reshape(*x.shape[:2], c.heads * c.head)
        x = x + product(o, "out", c.embed)
        x = constrain(x, "batch", "length", "activation")
        h = self.mlp_norm(x)
        h = _gated(product(h, "gate", c.mlp), product(h, "up", c.mlp))
        x = x + product(h, "down", c.embed)
        return constrain(x, "batch", "length", "activation"), kept

    def _product(self, x: jax.Array, name: str, *outputs: int, noise: jax.Array | None) -> jax.Array:
        """[B, T, D] by the matrix of that name -> [B, T, *outputs]: a plain product; and its adapter's."""
        matrix, size, lora = getattr(self, name)[...].astype(x.dtype), math.prod(outputs), self.config.lora
        if self.config.turned:
            product = _turned_linear(x, matrix.reshape(size, -1))
        else:
            product = _linear(x, matrix.reshape(-1, size))
        if lora is not None and name in lora.targets:
            a, b = (getattr(self, f"{name}{side}")[...].astype(x.dtype) for side in (LORA_A, LORA_B))
            if noise is not None:
                x = _dropped(x, lora.dropout, noise, LINEAR.index(name))
            product = product + lora.scale * _linear(_linear(x, a.reshape(-1, lora.rank)), b.reshape(lora.rank, size))
        return product.reshape(*x.shape[:-1], *outputs)


def _looked_up(table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of a table [V, D] for tokens [B, T], as [B, T, D] in `dtype`.

    Gathered, then cast: rows that occur often add up their gradients in the table's dtype. Where `fsdp` spreads the
    table's columns, each device looks up its columns for the rows of the batch of all of them, and they exchange these:
    neither the table nor a gradient of it, but a device's part of the batch crosses.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes or mesh.shape["fsdp"] == 1:
        return table[tokens].astype(dtype)

    def columns(table: jax.Array, tokens: jax.Array) -> jax.Array:
        tokens = jax.lax.all_gather(tokens, "fsdp", axis=0, tiled=True)
        if mesh.shape["tensor"] > 1:  # each has some of the rows
            tokens = tokens - jax.lax.axis_index("tensor") * table.shape[0]
            here = (tokens >= 0) & (tokens < table.shape[0])
            x = jnp.where(here[..., None], table[jnp.where(here, tokens, 0)], 0)
            x = jax.lax.psum(x.astype(dtype), "tensor")
        else:
            x = table[tokens].astype(dtype)
        return jax.lax.all_to_all(x, "fsdp", split_axis=0, concat_axis=2, tiled=True)

    mapped = jax.shard_map(
        columns, mesh=mesh, in_specs=(spec("vocab", "embed"), spec("batch")), out_specs=spec("batch"), check_vma=False
    )
    return mapped(table, tokens)


class Decoder(nnx.Module):
    """A causal language model."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        init = _Init(config, rngs)
        self.embedding = init.normal(0.02, vocab=config.vocabulary_size, embed=config.embed)
        if not config.tied:
            self.head = init.normal(config.embed**-0.5, head_vocab=config.vocabulary_size, embed=config.embed)
        if config.stacked:
            make = nnx.vmap(lambda r: Layer(config, rngs=r), in_axes=0, out_axes=0)
            self.layers = make(rngs.split(config.layers))
        else:
            self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])
        self.norm = RMSNorm(config)

    @_as_precise_as_its_dtype
    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        attend: Attend,
        cache: Any = None,
        *,
        remat: str = "none",
        noise: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """Runs tokens [B, T] at positions [B, T].

        attend, cache: see `models.attention`; `cache` reaches `attend` layer by layer. Its arrays have a leading layer
        axis; if the configuration is not `stacked`, it is a list instead, one entry a layer.
        remat: of `REMAT`, what the backward pass finds of a layer, and what it computes again; of stacked layers.
        noise: a key a row [B], of the dropout before adapters of stacked layers; None: nothing is dropped.
        Returns the normalised hidden states [B, T, D] and what `attend` keeps of all layers, laid out in the same way.
        """
        x, angles = self.embed(tokens, positions)
        if not self.config.stacked:
            segments = []
            for own, own_cache in zip(self.layers, cache or [None] * self.config.layers, strict=True):
                x, segment = own(x, angles, attend, own_cache)
                segments.append(segment)
            return self.norm(x), segments
        graphdef, stacked = nnx.split(self.layers)

        keys = None
        if noise is not None and self.config.lora is not None and self.config.lora.dropout:
            keys = jax.vmap(lambda i: jax.vmap(lambda key: jax.random.fold_in(key, i))(noise))(
                jnp.arange(self.config.layers)
            )

        def layer(x, inputs):
            parameters, layer_cache, layer_keys = inputs
            return nnx.merge(graphdef, parameters)(x, angles, attend, layer_cache, layer_keys)

        if remat != "none":  # in a scan nothing is merged by common subexpressions anyway
            layer = jax.checkpoint(layer, prevent_cse=False, policy=REMAT[remat])
        x, segment = jax.lax.scan(layer, x, (stacked, cache, keys), unroll=self.config.layers <= FEW_LAYERS)
        return self.norm(x), segment

    def embed(self, tokens: jax.Array, positions: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """What the first layer reads: tokens [B, T] as vectors [B, T, D], and the angles of their positions."""
        x = _looked_up(self.embedding[...], tokens, self.config.jax_dtype)
        return constrain(x, "batch", "length", "activation"), rotary.angles(self.config, positions)

    @_as_precise_as_its_dtype
    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> fp32 [..., V]."""
        head = self.embedding if self.config.tied else self.head
        head = head[...].astype(hidden.dtype)
        if self.config.turned:
            return _turned_linear(hidden, head, jnp.float32)
        return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)


class PreferenceModel(nnx.Module):
    """The process preference model: a decoder whose scalar head is read at the last token of a step (section 3.3).

    value_scale: what scores are divided by before they become values. It goes where the parameters go, but is not
    trained: rankings do not depend on it.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.decoder = Decoder(config, rngs=rngs)
        self.value = nnx.Param(jnp.zeros(config.embed), axes=("activation",))
        self.bias = nnx.Param(jnp.zeros(()), axes=())
        self.value_scale = nnx.Param(jnp.ones(()), axes=())

    def scores(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> fp32 [...]: raw scores, of any size."""
        hidden = hidden.astype(jnp.float32)
        return jnp.einsum("...d,d->...", hidden, self.value[...], precision="highest") + self.bias[...]

    def values(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> fp32 [...], in -1 to 1: what search takes a step to be worth."""
        return jnp.tanh(self.scores(hidden) / self.value_scale[...])
