"""What every phase of a run needs: tokenizer, mesh, verifier, grader, and the models behind search's protocols."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

from etils import epath
from jax.sharding import Mesh

from rstar_jax import evaluation
from rstar_jax.decoding import DecodingConfig, Engine, Sampling
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.models import DecoderConfig
from rstar_jax.models.parameters import Parameters
from rstar_jax.partitioning import make_mesh
from rstar_jax.problems import Problem
from rstar_jax.search import Tree
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

    def engine(
        self,
        policy: Parameters | None = None,
        ppm: Parameters | None = None,
        *,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Engine:
        """Policy and PPM as search sees them, with a pool of pages of their own; sampling: if not `decoding`'s."""
        decoding = self.decoding
        if sampling is not None:
            decoding = dataclasses.replace(decoding, **dataclasses.asdict(sampling))
        seed = self.seed if seed is None else seed
        return Engine(self.model, self.tokenizer, self.mesh, decoding, policy=policy, ppm=ppm, seed=seed)

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
