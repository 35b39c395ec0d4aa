"""What every phase of a run needs: mesh, verifier, grader, and models behind search's protocols."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from etils import epath
from jax.sharding import Mesh

from rstar_jax import configuration
from rstar_jax.decoding import DecodingConfig, Engine, Sampling, keep_programs
from rstar_jax.evaluation import Bench
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import WorldConfig
from rstar_jax.models import Policy, Preference
from rstar_jax.partitioning import make_mesh
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Grader, Verifier


def prompt_after(file: str | None) -> Callable[[str], str]:
    """What makes the prompt of a question: the text of `file`, found as gin files are, stands before it.

    Raises: FileNotFoundError.
    """
    if file is None:
        return steps.prompt
    preamble = configuration.find(file).read_text()
    return lambda question: preamble + steps.prompt(question) + "\n"


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

    def bench(
        self, policy: Policy, ppm: Preference | None, config: WorldConfig, trees: epath.PathLike | None = None
    ) -> Bench:
        """These models, to be measured as `config.evaluation` says. trees: where searched trees are kept, or None."""
        return Bench(
            make_engine=lambda sampling, with_ppm: self.engine(policy, ppm if with_ppm else None, sampling=sampling),
            has_ppm=ppm is not None,
            verifier=self.verifier,
            grader=self.grader,
            max_prefix_tokens=self.decoding.max_prefix_tokens,
            scheduling=config.scheduling,
            seed=config.seed,
            prompt=prompt_after(config.evaluation.few_shot),
            trees=trees,
            bar=progress.bar,
        )


@contextlib.contextmanager
def open_world(config: WorldConfig) -> Iterator[World]:
    """The world of a run. Ends verifier and grader however the run ends."""
    keep_programs()
    verifier = Verifier(limits=config.limits, workers=config.verifier_workers)
    with verifier, Grader(config.grader_workers) as grader:
        yield World(
            mesh=make_mesh(config.mesh),
            decoding=config.decoding,
            verifier=verifier,
            grader=grader,
            seed=config.seed,
        )
