"""How fast the host searches when the models cost almost nothing: one JSON line.

    python -m tests.benchmarks.search [--problems=2000 --rollouts=16 --candidates=8 --depth=8 --work=0.001]

A scripted policy is busy for `--work` seconds an expansion and writes short steps; no code runs. expansions_per_minute
is of the whole search on one core. bytes_per_node: what the process grew by; growth: bytes a node in the second half of
the trees over that in the first, 1 where memory is linear. tree_bytes_on_disk_per_node: of the shard they fill.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import tempfile
import time
from concurrent.futures import Future

from rstar_jax.problems.problem import Problem
from rstar_jax.search import SearchConfig, SearchStats, Step, search_all, write_shard
from rstar_jax.trajectory import markers
from rstar_jax.verifier.protocol import Outcome, Verdict

_TEXT = "\n# Step: add what is left to the sum\ntotal_{0} = total + {0}\nprint(total_{0})\n"


class Policy:
    """Draws from hashes of the key; works on what was submitted in its turn."""

    def __init__(self, work: float):
        self.work = work
        self.submitted: collections.deque = collections.deque()

    def encode(self, text: str) -> tuple[int, ...]:
        """Four bytes a token, about what a tokenizer makes of text."""
        data = text.encode()
        return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))

    def submit(self, prefix, n, *, stops) -> Future:
        """Asks for candidates."""
        future: Future = Future()
        self.submitted.append((prefix, n, future))
        return future

    def advance(self) -> None:
        """Answers all that was asked, `work` seconds each."""
        for _ in range(len(self.submitted)):
            prefix, n, future = self.submitted.popleft()
            end = time.perf_counter() + self.work
            future.set_result([self._step(prefix.key, i) for i in range(n)])
            while time.perf_counter() < end:
                pass

    def _step(self, key, index: int) -> Step:
        draw = int.from_bytes(hashlib.blake2b(repr((key, index)).encode(), digest_size=4).digest(), "little")
        if draw % 8 == 0:
            text, stop = f"\n{markers.ANSWER}\\boxed{{{draw % 7}}}{markers.END_OF_ANSWER}", markers.END_OF_ANSWER
        else:
            text, stop = f"{_TEXT.format(draw % 1000)}{markers.END_OF_STEP}", markers.END_OF_STEP
        return Step(text=text, tokens=self.encode(text), logprob=-1.0, stop=stop)


class NoVerifier:
    """Every program is fine and prints nothing."""

    def submit(self, request) -> Future:
        """At once."""
        future: Future = Future()
        future.set_result([Outcome(verdict=Verdict.OK)] * len(request.candidates))
        return future

    def run(self, requests) -> list[list[Outcome]]:
        """Several."""
        return [self.submit(request).result() for request in requests]


class Grader:
    """By text."""

    def submit(self, pair) -> Future:
        """Equal or not, at once."""
        golds, answer = pair
        future: Future = Future()
        future.set_result(answer in golds)
        return future


def resident_bytes() -> int:
    """Of this process."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def search_config(flags: argparse.Namespace) -> SearchConfig:
    """A terminal-guided search of the shape that the flags say."""
    return SearchConfig(
        candidates=flags.candidates,
        rollouts=flags.rollouts,
        max_depth=flags.depth,
        exploration=2.0,
        value_mode="terminal",
        max_consecutive_errors=2,
        max_prefix_tokens=4096,
    )


def sums(count: int) -> list[Problem]:
    """Problems for `Policy`."""
    return [Problem(id=f"{i}", question=f"What is {i} + {i}?", answers=(str(i % 7),)) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in {"problems": 2000, "rollouts": 16, "candidates": 8, "depth": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--work", type=float, default=0.001)
    flags = parser.parse_args()
    config = search_config(flags)
    problems = sums(flags.problems)
    half = flags.problems // 2
    sizes, memory, stats = [], [resident_bytes()], SearchStats()
    trees, start, cpu = [], time.perf_counter(), time.process_time()
    for part in (problems[:half], problems[half:]):
        trees += search_all(
            part, sampler=Policy(flags.work), verifier=NoVerifier(), grader=Grader(), config=config, stats=stats
        )
        memory.append(resident_bytes())
        sizes.append(sum(tree.size for tree in trees))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    with tempfile.TemporaryDirectory() as folder:
        on_disk = write_shard(folder, 0, 1, trees).stat().length
    first, second = (memory[1] - memory[0]) / sizes[0], (memory[2] - memory[1]) / (sizes[1] - sizes[0])
    line = {
        "problems": flags.problems,
        "expansions": stats.expansions,
        "nodes": sizes[1],
        "expansions_per_minute": 60 * stats.expansions / seconds,
        "host_microseconds_per_expansion": 1e6 * (cpu - flags.work * stats.expansions) / stats.expansions,
        "bytes_per_node": (memory[2] - memory[0]) / sizes[1],
        "growth": second / first,
        "tree_bytes_on_disk_per_node": on_disk / sizes[1],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
