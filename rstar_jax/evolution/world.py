"""What every phase of a run needs: mesh, verifier, grader, and models behind search's protocols."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

from jax.sharding import Mesh

from rstar_jax import evaluation
from rstar_jax.decoding import DecodingConfig, Engine, Sampling
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.models import DecoderConfig, Policy, Preference
from rstar_jax.partitioning import make_mesh
from rstar_jax.problems import Problem
from rstar_jax.search import Tree
from rstar_jax.training import losses
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
    """Everything but the models."""

    mesh: Mesh
    decoding: DecodingConfig
    verifier: Verifier
    grader: Grader
    seed: int

    def engine(
        self,
        policy: Policy,
        ppm: Preference | None = None,
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Engine:
        """Policy and PPM as search sees them, with a pool of pages of their own; sampling: if not `decoding`'s.

        Raises: ValueError for a model without a tokenizer, and a PPM that reads other token ids than the policy writes.
        """
        if policy.tokenizer is None:
            raise ValueError("policy: expected a tokenizer.json in its folder")
        if ppm is not None and ppm.tokenizer != policy.tokenizer:
            raise ValueError("ppm: its tokenizer is not the policy's; expected one that was trained from such a policy")
        decoding = self.decoding
        if sampling is not None:
            decoding = dataclasses.replace(decoding, **dataclasses.asdict(sampling))
        seed = self.seed if seed is None else seed
        return Engine(
            policy.config,
            policy.tokenizer,
            self.mesh,
            decoding,
            policy=policy.parameters,
            ppm=None if ppm is None else ppm.parameters,
            ppm_model=None if ppm is None else ppm.config,
            seed=seed,
        )

    def test_time_search(
        self, problems: Sequence[Problem], engine: Engine, config: EvolutionConfig, name: str
    ) -> list[list[Tree]]:
        """The trees of each problem, searched as `config.evaluation` says; `name` stands beside the bar."""
        settings = config.evaluation
        with progress.bar(name, len(problems) * settings.trajectories, "trees") as advance_to:
            return evaluation.search_trees(
                problems,
                config=settings.search,
                trajectories=settings.trajectories,
                sampler=engine,
                scorer=engine,
                verifier=self.verifier,
                seed=config.seed,
                scheduling=config.scheduling,
                on_progress=lambda stats: advance_to(stats.finished_trees, f"{stats.expansions} expansions"),
            )


@contextlib.contextmanager
def open_world(config: EvolutionConfig) -> Iterator[World]:
    """The world of a run. Ends verifier and grader however the run ends."""
    with Verifier(limits=config.limits, workers=config.verifier_workers) as verifier, Grader() as grader:
        yield World(
            mesh=make_mesh(config.mesh),
            decoding=config.decoding,
            verifier=verifier,
            grader=grader,
            seed=config.seed,
        )
