"""The decoder, and the process preference model that shares its body.

Modules say what there is; at run time `nnx.split` gives (graphdef, parameters) once and pure functions run under
`jax.jit`. Layers are stacked on a leading axis and scanned. Letters: B batch, T time, D embed, N query heads, K
key-value heads, G = N / K, H head size, F feed-forward, V vocabulary, L layers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rstar_jax.models.config import DecoderConfig
from rstar_jax.partitioning import constrain

Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], scale: float, axes: tuple[str, ...]) -> nnx.Param:
    return nnx.Param(scale * jax.random.normal(rngs.params(), shape), axes=axes)


class RMSNorm(nnx.Module):
    """Root mean square normalisation, in fp32."""

    def __init__(self, config: DecoderConfig):
        self.scale = nnx.Param(jnp.ones(config.embed), axes=("activation",))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D]."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * self.scale[...]).astype(x.dtype)


def rotary_angles(positions: jax.Array, head: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """(sin, cos) [B, T, H / 2] of rotary positions [B, T]: made once for all layers."""
    half = head // 2
    angles = positions.astype(jnp.float32)[..., None] * theta ** (-jnp.arange(half) / half)
    return jnp.sin(angles), jnp.cos(angles)


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary position embedding of x [B, T, N, H] (halves, not pairs, as in Qwen2)."""
    sin, cos = (angle[:, :, None] for angle in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


@jax.checkpoint
def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """SwiGLU; computed again in the backward pass, for the same reason as attention."""
    return jax.nn.silu(gate) * up


class Layer(nnx.Module):
    """One decoder layer: attention, then a gated feed-forward block, each on a normalised residual stream."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        c = config
        self.config = c
        deep = (2 * c.layers) ** -0.5  # keeps the residual stream's variance independent of depth
        self.attention_norm, self.mlp_norm = RMSNorm(c), RMSNorm(c)
        self.query = _normal(rngs, (c.embed, c.heads, c.head), c.embed**-0.5, ("embed", "heads", "head"))
        self.key = _normal(rngs, (c.embed, c.kv_heads, c.head), c.embed**-0.5, ("embed", "kv_heads", "head"))
        self.value = _normal(rngs, (c.embed, c.kv_heads, c.head), c.embed**-0.5, ("embed", "kv_heads", "head"))
        self.query_bias = nnx.Param(jnp.zeros((c.heads, c.head)), axes=("heads", "head"))
        self.key_bias = nnx.Param(jnp.zeros((c.kv_heads, c.head)), axes=("kv_heads", "head"))
        self.value_bias = nnx.Param(jnp.zeros((c.kv_heads, c.head)), axes=("kv_heads", "head"))
        out_scale = (c.heads * c.head) ** -0.5 * deep
        self.out = _normal(rngs, (c.heads, c.head, c.embed), out_scale, ("heads", "head", "embed"))
        self.gate = _normal(rngs, (c.embed, c.mlp), c.embed**-0.5, ("embed", "mlp"))
        self.up = _normal(rngs, (c.embed, c.mlp), c.embed**-0.5, ("embed", "mlp"))
        self.down = _normal(rngs, (c.mlp, c.embed), c.mlp**-0.5 * deep, ("mlp", "embed"))

    def __call__(
        self, x: jax.Array, angles: tuple[jax.Array, jax.Array], attend: Attend, cache: Any
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """x [B, T, D] -> x [B, T, D] and this segment's keys and values [B, K, T, H]."""
        c, dtype = self.config, x.dtype
        h = self.attention_norm(x)
        query = jnp.einsum("btd,dnh->btnh", h, self.query[...].astype(dtype)) + self.query_bias[...].astype(dtype)
        key = jnp.einsum("btd,dkh->btkh", h, self.key[...].astype(dtype)) + self.key_bias[...].astype(dtype)
        value = jnp.einsum("btd,dkh->btkh", h, self.value[...].astype(dtype)) + self.value_bias[...].astype(dtype)
        query = rotate(query, angles)
        key = rotate(key, angles)
        query = query.reshape(*query.shape[:2], c.kv_heads, c.heads // c.kv_heads, c.head).swapaxes(1, 2)
        key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
        # Scores are cheaper to compute again in the backward pass than to keep: a fifth of a train step on CPU.
        o = (
            jax.checkpoint(attend)(query, key, value, cache)
            .astype(dtype)
            .swapaxes(1, 2)
            .reshape(*x.shape[:2], c.heads, c.head)
        )
        x = x + jnp.einsum("btnh,nhd->btd", o, self.out[...].astype(dtype))
        x = constrain(x, "batch", "length", "activation")
        h = self.mlp_norm(x)
        h = _gated(h @ self.gate[...].astype(dtype), h @ self.up[...].astype(dtype))
        x = x + h @ self.down[...].astype(dtype)
        return constrain(x, "batch", "length", "activation"), (key, value)


class Decoder(nnx.Module):
    """A causal language model."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = _normal(rngs, (config.vocabulary_size, config.embed), 0.02, ("vocab", "embed"))
        make = nnx.vmap(lambda r: Layer(config, rngs=r), in_axes=0, out_axes=0)
        self.layers = make(rngs.split(config.layers))
        self.norm = RMSNorm(config)

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, attend: Attend, cache: Any = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Runs tokens [B, T] at positions [B, T].

        attend, cache: see `models.attention`; `cache` has a leading layer axis and reaches `attend` layer by layer.
        Returns the normalised hidden states [B, T, D] and this segment's keys and values [L, B, K, T, H].
        """
        x = self.embedding[...].astype(self.config.jax_dtype)[tokens]
        x = constrain(x, "batch", "length", "activation")
        angles = rotary_angles(positions, self.config.head, self.config.rope_theta)
        graphdef, stacked = nnx.split(self.layers)

        def layer(x, inputs):
            parameters, layer_cache = inputs
            return nnx.merge(graphdef, parameters)(x, angles, attend, layer_cache)

        x, segment = jax.lax.scan(layer, x, (stacked, cache))
        return self.norm(x), segment

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> fp32 [..., V], through the tied embedding."""
        embedding = self.embedding[...].astype(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32)


class PreferenceModel(nnx.Module):
    """The process preference model: a decoder whose scalar head is read at the last token of a step (section 3.3)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.decoder = Decoder(config, rngs=rngs)
        self.value = nnx.Param(jnp.zeros(config.embed), axes=("activation",))
        self.bias = nnx.Param(jnp.zeros(()), axes=())

    def scores(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> fp32 [...]: raw scores. The value of a step is tanh of its score."""
        return jnp.einsum("...d,d->...", hidden.astype(jnp.float32), self.value[...]) + self.bias[...]
