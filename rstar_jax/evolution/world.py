"""What every phase of a run needs: tokenizer, mesh, verifier, grader, and the models behind search's protocols."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

from jax.sharding import Mesh

from rstar_jax.decoding import DecodingConfig, PolicySampler, PreferenceScorer
from rstar_jax.models import DecoderConfig
from rstar_jax.models.parameters import Parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.training import losses
from rstar_jax.trajectory.tokenizer import Tokenizer
from rstar_jax.verifier import Grader, Limits, Verifier


@functools.cache
def policy_loss(model: DecoderConfig):
    """The policy's loss for one model: one object a model, so that its train step is compiled once."""
    return functools.partial(losses.policy_loss, model)


@functools.cache
def preference_loss(model: DecoderConfig):
    """The PPM's loss for one model."""
    return functools.partial(losses.preference_loss, model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Everything but the parameters."""

    model: DecoderConfig
    tokenizer: Tokenizer
    mesh: Mesh
    decoding: DecodingConfig
    verifier: Verifier
    grader: Grader
    seed: int

    def sampler(self, policy: Parameters, *, greedy: bool = False, seed: int | None = None) -> PolicySampler:
        """The policy as search sees it; `greedy` sets the temperature to 0."""
        decoding = dataclasses.replace(self.decoding, temperature=0.0) if greedy else self.decoding
        seed = self.seed if seed is None else seed
        return PolicySampler(self.model, policy, self.tokenizer, self.mesh, decoding, seed=seed)

    def scorer(self, ppm: Parameters) -> PreferenceScorer:
        """The PPM as search sees it."""
        return PreferenceScorer(self.model, ppm, self.mesh, self.decoding)


@contextlib.contextmanager
def open_world(
    *,
    model: DecoderConfig,
    tokenizer: Tokenizer,
    mesh: MeshConfig,
    decoding: DecodingConfig,
    limits: Limits,
    workers: int | None,
    seed: int,
) -> Iterator[World]:
    """Starts verifier and grader, and ends them however the run ends."""
    model = dataclasses.replace(model, vocabulary_size=len(tokenizer))
    with Verifier(limits=limits, workers=workers) as verifier, Grader() as grader:
        yield World(
            model=model,
            tokenizer=tokenizer,
            mesh=make_mesh(mesh),
            decoding=decoding,
            verifier=verifier,
            grader=grader,
            seed=seed,
        )
