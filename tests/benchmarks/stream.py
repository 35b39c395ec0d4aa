"""Whether memory stays flat while many trees are searched, written and selected from: one JSON line.

    python -m tests.benchmarks.stream [--problems=20000 --shards=80 --trees=1 --rollouts=4 --candidates=4 --depth=8]

The policy is that of `tests.benchmarks.search`, and costs next to nothing; the rest is the product: one search over the
borders of shards, the files of trees, and the selection of each shard as soon as it is there. Resident memory is
looked at each second. grows_megabytes_per_1000_trees: the slope of the line through what was seen after the first
minute; 0 where memory is flat.
"""

import argparse
import json
import tempfile
import threading
import time
import types
from collections.abc import Iterator

import numpy as np

from rstar_jax.evolution.annotate import trees_folder
from rstar_jax.evolution.run import Run, problems_folder
from rstar_jax.evolution.run_folder import RunFolder
from rstar_jax.evolution.select import Selection
from rstar_jax.problems.problem import Problem
from rstar_jax.problems.stored import write_problems
from rstar_jax.search import PairConfig, SearchConfig, SearchStats, ShardsWriter, search
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests.benchmarks.search import Grader, NoVerifier, Policy, resident_bytes, search_config, sums

_FIRST_SECONDS = 60.0


class Memory:
    """Resident megabytes, seen each second by a thread: `seen` has (seconds, trees, megabytes)."""

    def __init__(self, stats: SearchStats):
        self.seen: list[tuple[float, int, float]] = []
        self._stats, self._over = stats, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Memory":
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        over = False
        while not over:
            over = self._over.wait(1.0)
            self.seen.append((time.monotonic() - self._start, self._stats.finished_trees, resident_bytes() / 2**20))


def new_run(folder: str, problems: int, shards: int) -> Run:
    """A run of one round, as far as its trees and their selection need one."""
    every = sums(problems)
    write_problems(problems_folder(folder, "train"), every, shards)
    run_folder = RunFolder(folder)
    Tokenizer.train([steps.prompt(problem.question) for problem in every[:100]], 400).save(
        run_folder.round(0) / "policy"
    )
    own = types.SimpleNamespace(passes=(None,), trajectories=2, pairs=PairConfig(), problems=None)
    config = types.SimpleNamespace(shards=shards, rounds=(own,))
    return Run(config=config, folder=run_folder, world=types.SimpleNamespace(verifier=NoVerifier()))


def searched(run: Run, trees: int, config: SearchConfig, stats: SearchStats) -> Iterator[int]:
    """Searches all shards without a border between them; gives each as soon as its trees are written."""
    stored, total = run.problems("train"), run.config.shards
    with ShardsWriter(run.folder.path / trees_folder(1, 1), total) as writer:

        def problems() -> Iterator[Problem]:
            for shard in range(total):
                own = stored.shard(shard)
                writer.begin(shard, own, trees)
                yield from own

        world = {"sampler": Policy(0.0), "verifier": NoVerifier(), "grader": Grader()}
        for tree in search(problems(), config=config, trajectories=trees, stats=stats, **world):
            shard = writer.add(tree)
            del tree  # it must not live on while the shard is selected from
            if shard is not None:
                yield shard


def main() -> None:
    parser = argparse.ArgumentParser()
    defaults = {"problems": 20_000, "shards": 80, "trees": 1, "rollouts": 4, "candidates": 4, "depth": 8}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", default=None)
    flags = parser.parse_args()
    config = search_config(flags)
    stats, expected = SearchStats(), flags.problems * flags.trees
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        run = new_run(folder, flags.problems, flags.shards)
        start, cpu = time.monotonic(), time.process_time()
        with Memory(stats) as memory:
            Selection(run, 1).shards().work(searched(run, flags.trees, config, stats))
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    if stats.finished_trees != expected:
        raise RuntimeError(f"searched {stats.finished_trees} trees, expected {expected}")
    later = [row for row in memory.seen if row[0] >= _FIRST_SECONDS]
    if len(later) < 3:
        raise RuntimeError(f"over after {seconds:.0f} s: more problems are needed to see what follows the first minute")
    _, trees, megabytes = np.array(later).T
    line = {
        "problems": flags.problems,
        "trees": expected,
        "candidates": stats.candidates,
        "seconds": seconds,
        "trees_per_second": expected / seconds,
        "trees_per_cpu_second": expected / cpu,
        "megabytes_after_first_minute": megabytes[0],
        "megabytes_at_end": megabytes[-1],
        "megabytes_at_most": max(row[2] for row in memory.seen),
        "trees_after_first_minute": int(trees[-1] - trees[0]),
        "grows_megabytes_per_1000_trees": 1000 * np.polyfit(trees, megabytes, 1)[0],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
