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

from rstar_jax.models import rotary
from rstar_jax.models.config import DecoderConfig
from rstar_jax.partitioning import constrain

FEW_LAYERS = 4  # unrolled: XLA on CPU copies each slice of a stack, a quarter of a train step of three layers
_FEW_ROWS = 96  # of a product whose time is that of reading its weight, more or less

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

    @_as_precise_as_its_dtype
    def __call__(
        self, x: jax.Array, angles: tuple[jax.Array, jax.Array], attend: Attend, cache: Any
    ) -> tuple[jax.Array, Any]:
        """x [B, T, D] -> x [B, T, D] and what `attend` keeps: this segment's keys and values [B, K, T, H], mostly."""
        c, dtype = self.config, x.dtype
        h = self.attention_norm(x)
        query = self._product(h, self.query, c.heads, c.head)
        key, value = (self._product(h, weight, c.kv_heads, c.head) for weight in (self.key, self.value))
        if c.qkv_bias:
            query = query + self.query_bias[...].astype(dtype)
            key = key + self.key_bias[...].astype(dtype)
            value = value + self.value_bias[...].astype(dtype)
        query, key = rotary.rotate(query, angles), rotary.rotate(key, angles)
        query = query.reshape(*query.shape[:2], c.kv_heads, c.heads // c.kv_heads, c.head).swapaxes(1, 2)
        key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
        # Scores are cheaper to compute again in the backward pass than to keep: a fifth of a train step on CPU.
        o, kept = jax.checkpoint(attend)(query, key, value, cache)
        o = o.astype(dtype).swapaxes(1, 2).reshape(*x.shape[:2], c.heads * c.head)
        x = x + self._product(o, self.out, c.embed)
        x = constrain(x, "batch", "length", "activation")
        h = self.mlp_norm(x)
        h = _gated(self._product(h, self.gate, c.mlp), self._product(h, self.up, c.mlp))
        x = x + self._product(h, self.down, c.embed)
        return constrain(x, "batch", "length", "activation"), kept

    def _product(self, x: jax.Array, weight: nnx.Param, *outputs: int) -> jax.Array:
        """[..., D] by a weight of these output sizes -> [..., *outputs]: a plain product of two matrices."""
        matrix, size = weight[...].astype(x.dtype), math.prod(outputs)
        if self.config.turned:
            product = _turned_linear(x, matrix.reshape(size, -1))
        else:
            product = _linear(x, matrix.reshape(-1, size))
        return product.reshape(*x.shape[:-1], *outputs)


class Decoder(nnx.Module):
    """A causal language model."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        init = _Init(config, rngs)
        self.embedding = init.normal(0.02, vocab=config.vocabulary_size, embed=config.embed)
        if not config.tied:
            self.head = init.normal(config.embed**-0.5, vocab=config.vocabulary_size, embed=config.embed)
        if config.stacked:
            make = nnx.vmap(lambda r: Layer(config, rngs=r), in_axes=0, out_axes=0)
            self.layers = make(rngs.split(config.layers))
        else:
            self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])
        self.norm = RMSNorm(config)

    @_as_precise_as_its_dtype
    def __call__(
        self, tokens: jax.Array, positions: jax.Array, attend: Attend, cache: Any = None
    ) -> tuple[jax.Array, Any]:
        """Runs tokens [B, T] at positions [B, T].

        attend, cache: see `models.attention`; `cache` reaches `attend` layer by layer. Its arrays have a leading layer
        axis; if the configuration is not `stacked`, it is a list instead, one entry a layer.
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

        def layer(x, inputs):
            parameters, layer_cache = inputs
            return nnx.merge(graphdef, parameters)(x, angles, attend, layer_cache)

        x, segment = jax.lax.scan(layer, x, (stacked, cache), unroll=self.config.layers <= FEW_LAYERS)
        return self.norm(x), segment

    def embed(self, tokens: jax.Array, positions: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """What the first layer reads: tokens [B, T] as vectors [B, T, D], and the angles of their positions."""
        # Gathered, then cast: rows that occur often add up their gradients in the parameters' dtype.
        x = self.embedding[...][tokens].astype(self.config.jax_dtype)
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
