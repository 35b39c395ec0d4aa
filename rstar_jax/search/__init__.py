"""Tree search over verified steps: trees, MCTS, the scheduler of many trees, what is learned. No JAX here."""

from rstar_jax.search.answers import (
    RULES,
    ScoredAnswer,
    VoteConfig,
    best,
    choose,
    equivalence_classes,
    pass_at_k,
    tree_answers,
    vote,
)
from rstar_jax.search.beam import beam_search
from rstar_jax.search.config import SchedulerConfig, SearchConfig
from rstar_jax.search.mcts import search_tree
from rstar_jax.search.protocols import Grader, Prefix, Step, StepSampler, StepScorer, Verifier
from rstar_jax.search.published_selection import PublishedSelection
from rstar_jax.search.sampling import Solution, sample_solutions, solution_answers
from rstar_jax.search.scheduler import SearchStats, search, search_all
from rstar_jax.search.selection import (
    PairConfig,
    PreferencePair,
    best_trajectories,
    correct_trajectories,
    preference_pairs,
    valued_steps,
)
from rstar_jax.search.storage import (
    Ends,
    ShardsWriter,
    all_ends,
    missing_shards,
    read_shard,
    read_trees,
    shard_ends,
    write_shard,
)
from rstar_jax.search.tree import Kind, Tree, tree_key

__all__ = [
    "RULES",
    "Ends",
    "Grader",
    "Kind",
    "PairConfig",
    "PreferencePair",
    "Prefix",
    "PublishedSelection",
    "SchedulerConfig",
    "ScoredAnswer",
    "SearchConfig",
    "SearchStats",
    "ShardsWriter",
    "Solution",
    "Step",
    "StepSampler",
    "StepScorer",
    "Tree",
    "Verifier",
    "VoteConfig",
    "all_ends",
    "beam_search",
    "best",
    "best_trajectories",
    "choose",
    "correct_trajectories",
    "equivalence_classes",
    "missing_shards",
    "pass_at_k",
    "preference_pairs",
    "read_shard",
    "read_trees",
    "sample_solutions",
    "search",
    "search_all",
    "search_tree",
    "shard_ends",
    "solution_answers",
    "tree_answers",
    "tree_key",
    "valued_steps",
    "vote",
    "write_shard",
]
