"""Tree search over verified steps: trees, MCTS, the scheduler of many trees, what is learned. No JAX here."""

from rstar_jax.search.answers import best, majority, pass_at_k
from rstar_jax.search.config import SearchConfig
from rstar_jax.search.mcts import search_tree
from rstar_jax.search.protocols import Grader, Prefix, Step, StepSampler, StepScorer, Verifier
from rstar_jax.search.published_selection import PublishedSelection
from rstar_jax.search.sampling import Solution, sample_solutions
from rstar_jax.search.scheduler import SearchStats, search
from rstar_jax.search.selection import PairConfig, PreferencePair, correct_trajectories, preference_pairs
from rstar_jax.search.storage import missing_shards, read_shard, read_trees, write_shard
from rstar_jax.search.tree import Kind, Tree, tree_key

__all__ = [
    "Grader",
    "Kind",
    "PairConfig",
    "PreferencePair",
    "Prefix",
    "PublishedSelection",
    "SearchConfig",
    "SearchStats",
    "Solution",
    "Step",
    "StepSampler",
    "StepScorer",
    "Tree",
    "Verifier",
    "best",
    "correct_trajectories",
    "majority",
    "missing_shards",
    "pass_at_k",
    "preference_pairs",
    "read_shard",
    "read_trees",
    "sample_solutions",
    "search",
    "search_tree",
    "tree_key",
    "write_shard",
]
