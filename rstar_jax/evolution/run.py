"""What every phase of a run works with: its configuration, its folder, its world; and what the folder holds."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from rstar_jax import models
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import EvolutionConfig, Round
from rstar_jax.evolution.run_folder import RunFolder
from rstar_jax.evolution.world import World
from rstar_jax.models import Policy, Preference
from rstar_jax.partitioning import make_mesh
from rstar_jax.problems.stored import StoredProblems

EXAMPLES = "examples"  # the set of worked examples


@dataclasses.dataclass(kw_only=True)
class Run:
    """One run. world: None while it is only planned."""

    config: EvolutionConfig
    folder: RunFolder
    world: World | None = None

    @functools.cached_property
    def training_mesh(self) -> Mesh:
        """On which models are trained."""
        return make_mesh(self.config.training_mesh or self.config.mesh)

    @property
    def last(self) -> int:
        """The number of the last round."""
        return len(self.config.rounds)

    def round(self, number: int) -> Round:
        """The settings of a round; the first is 1."""
        return self.config.rounds[number - 1]

    def round_problems(self, number: int) -> str:
        """The name of the set of problems that a round searches."""
        return "train" if self.round(number).problems is None else f"round_{number}"

    def problems(self, name: str) -> StoredProblems:
        """A set of problems that a phase has written."""
        return StoredProblems(problems_folder(self.folder.path, name))

    def policy(self, number: int, name: str = "policy", dtype: str | None = None, mesh: Mesh | None = None) -> Policy:
        """The policy of a round, 0 the base; or another of its models. mesh: by default the one that it decodes on."""
        return models.load(self.folder.round(number) / name, mesh or self.world.mesh, dtype)

    def ppm(self, number: int) -> Preference:
        """The PPM of a round."""
        return models.load_preference(self.folder.round(number) / "ppm", self.world.mesh)

    def note(self, number: int, rows: Sequence[Mapping[str, Any]], split: str = "heldout") -> None:
        """Adds numbers to those of the phase, and says them."""
        for row in rows:
            self.folder.add(round=number, split=split, **row)
        for name in dict.fromkeys(row["name"] for row in rows if "trajectories" not in row):
            said = [_said(row) for row in rows if row["name"] == name]
            on = next((f" on {row['benchmark']}" for row in rows if "benchmark" in row), "")
            progress.say(f"round {number}: {name}{on} {', '.join(said)}")


def problems_folder(run_dir: epath.PathLike, name: str) -> epath.Path:
    """Where a run keeps a set of problems."""
    return epath.Path(run_dir) / "problems" / name


def benchmark_set(name: str) -> str:
    """The name of the set of a benchmark's problems."""
    return f"benchmark_{name}"


def _said(row: Mapping[str, Any]) -> str:
    """A number with its standard error and what it is the mean of."""
    if "level" in row:
        return f"level {row['level']}: {row['value']:.3f}"
    error = f" ± {row['error']:.3f} of {row['n']} problems" if "error" in row else ""
    undecided = f", {row['undecided']} undecided" if row.get("undecided") else ""
    return f"{row['value']:.3f}{error}{' of levels ' + row['levels'] if 'levels' in row else ''}{undecided}"
