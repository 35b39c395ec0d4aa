"""What every phase of a run needs: tokenizer, mesh, verifier, grader, and the models behind search's protocols."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

from etils import epath
from jax.sharding import Mesh

from rstar_jax.decoding import DecodingConfig, PolicySampler, PreferenceScorer
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.models import DecoderConfig
from rstar_jax.models.parameters import Parameters
from rstar_jax.partitioning import make_mesh
from rstar_jax.training import losses
from rstar_jax.trajectory.tokenizer import Tokenizer
from rstar_jax.verifier import Grader, Verifier


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
def open_world(config: EvolutionConfig, run_dir: epath.PathLike) -> Iterator[World]:
    """The world of a run whose tokenizer is there. Ends verifier and grader however the run ends."""
    tokenizer = Tokenizer.load(epath.Path(run_dir) / "tokenizer")
    with Verifier(limits=config.limits, workers=config.verifier_workers) as verifier, Grader() as grader:
        yield World(
            model=config.decoder(len(tokenizer)),
            tokenizer=tokenizer,
            mesh=make_mesh(config.mesh),
            decoding=config.decoding,
            verifier=verifier,
            grader=grader,
            seed=config.seed,
        )
