"""Rules of the search compared in a scripted world at equal numbers of expansions: prints one JSON line a rule.

    python -m tests.benchmarks.search_rules --world mistakes --mode terminal
    python -m tests.benchmarks.search_rules --world shades --mode terminal
    python -m tests.benchmarks.search_rules --world mistakes --mode ppm

The policy draws each step from a few that a path may go on with, some likelier than others; each has a hidden quality.
Good steps raise the chance that an answer below is correct. Where steps are mistakes or not, a mistake makes a correct
answer below it very unlikely; where they are shades, each moves the chance a little. The PPM sees that chance, with
noise. A line says, a problem: distinct correct trajectories and the share of problems with one; the share of rollouts
that expanded nothing, and the share of open children of nodes with 4 visits or more that were expanded; means over
seeds, with standard errors (`*_error`), and the gains over the published rule, seed by seed (`*_gain`, `*_gain_error`).
"""

import argparse
import collections
import dataclasses
import functools
import hashlib
import json
import math
import random
from collections.abc import Callable, Generator

import numpy as np

from rstar_jax.problems.problem import Problem
from rstar_jax.search import Kind, SearchConfig, Step, Tree
from rstar_jax.search.expansion import Run, Sample, expand
from rstar_jax.search.mcts import rollout
from rstar_jax.search.tree import ROOT_INDEX, tree_key
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Outcome, Verdict

PUBLISHED = "published"
RULES = {
    PUBLISHED: {"unvisited": "zero", "exhaustion": "by_level"},
    "zero": {"unvisited": "zero"},
    "infinite": {"unvisited": "infinite"},
    "parent": {"unvisited": "parent"},
    "sibling": {"unvisited": "sibling"},
}
MEASURES = ("trajectories", "solved", "idle_rollouts", "tried_children")
WAYS = 6  # that a path may go on
FAILS, ANSWERS = 0.1, 0.35  # of the ways; answers from the third step on
NOISE = 0.35  # of the PPM


@functools.cache
def mistakes(seed: int, index: int, written: tuple[str, ...]) -> float:
    """The quality of the last of these steps where most problems are problems because most steps are mistakes."""
    if not written:
        return 2.0
    share = random.Random(f"{seed} {index}").uniform(0.3, 0.95)
    rng = draw(seed, index, "quality", written)
    return (-6.0 if rng.random() < share else 0.0) + rng.gauss(0.0, 0.5)


@functools.cache
def shades(seed: int, index: int, written: tuple[str, ...]) -> float:
    """The same where steps are a little better or worse, and most is decided by how hard the problem is."""
    if not written:
        return random.Random(f"{seed} {index}").uniform(-8.0, -1.0)
    return draw(seed, index, "quality", written).gauss(0.0, 0.9)


WORLDS = {"mistakes": mistakes, "shades": shades}


def draw(*key) -> random.Random:
    """A generator of its own for each key."""
    return random.Random(hashlib.sha256(repr(key).encode()).digest())


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Everything that search asks, for one problem: all draws hang on what was written alone."""

    quality: Callable[[int, int, tuple[str, ...]], float]
    seed: int
    index: int
    prompt: str
    candidates: int

    def logit(self, path: str) -> float:
        """What an answer below a path has for it."""
        written = path.removeprefix(self.prompt).split(markers.END_OF_STEP)[:-1]
        return sum(self.quality(self.seed, self.index, tuple(written[:end])) for end in range(len(written) + 1))

    def sample(self, path: str, n: int) -> list[Step]:
        """n of the ways to go on, the first the likeliest; equal ones among them."""
        rng = draw(self.seed, self.index, "sample", path)
        depth = path.count(markers.END_OF_STEP)
        drawn = rng.choices(range(WAYS), [1 / (1 + way) for way in range(WAYS)], k=n)
        return [self.way(path, way, depth) for way in drawn]

    def way(self, path: str, way: int, depth: int) -> Step:
        stop = markers.END_OF_STEP
        if depth >= 2 and draw(self.seed, self.index, "kind", path, way).random() < ANSWERS:
            correct = draw(self.seed, self.index, "answer", path, way).random() < 1 / (1 + math.exp(-self.logit(path)))
            text, stop = f"{way}\\boxed{{{'right' if correct else 'wrong'}}}", markers.END_OF_ANSWER
        else:
            text = f"{'fails' if draw(self.seed, self.index, 'fails', path, way).random() < FAILS else 'step'} {way}\n"
        return Step(text=text + stop, tokens=tuple((text + stop).encode()), logprob=0.0, stop=stop)

    def run(self, code: str) -> Outcome:
        return Outcome(verdict=Verdict.ERROR, error="E") if code.startswith("fails") else Outcome(verdict=Verdict.OK)

    def score(self, path: str) -> float:
        value = math.tanh(self.logit(path) / 2) + draw(self.seed, self.index, "noise", path).gauss(0, NOISE)
        return max(-1.0, min(1.0, value))

    def answer(self, ask) -> object:
        """What `expand` is sent for what it asked."""
        if isinstance(ask, Sample):
            return [self.sample(prefix.text, self.candidates) for prefix in ask.prefixes]
        if isinstance(ask, Run):
            return [[self.run(code) for code in request.candidates] for request in ask.requests]
        scores = [
            [self.score(prefix.text + bytes(tokens).decode()) for tokens in row]
            for prefix, row in zip(ask.prefixes, ask.candidates, strict=True)
        ]
        return scores, [gold == answer for gold, answer in ask.answers]


def grow(world: World, problem: Problem, config: SearchConfig, expansions: int) -> tuple[Tree, int, int]:
    """A tree after so many expansions, its rollouts, and how many of them expanded nothing."""
    tree = Tree(problem, key=tree_key(world.seed, problem.id), prompt=world.prompt, prompt_tokens=(0,))
    in_flight = collections.Counter()
    done = rollouts = idle = 0
    while done < expansions and not tree.exhausted[ROOT_INDEX]:
        before = done
        for node in rollout(tree, config, in_flight):
            if done == expansions:
                break
            _drive(expand(tree, [node], config, encode=lambda text: tuple(text.encode())), world)
            done += 1
        rollouts += 1
        idle += done == before
    return tree, rollouts, idle


def measure(mode: str, rule: str, seed: int, flags: argparse.Namespace) -> list[float]:
    """The measures of one rule and seed, in the order of MEASURES."""
    config = SearchConfig(
        candidates=flags.candidates,
        rollouts=1,
        max_depth=flags.depth,
        exploration=flags.exploration,
        value_mode=mode,
        max_consecutive_errors=1,
        max_prefix_tokens=100_000,
        first_answer_only=flags.first_answer_only,
        **RULES[rule],
    )
    found, solved, rollouts, idle, tried, viable = [], [], 0, 0, 0, 0
    for index in range(flags.problems):
        problem = Problem(id=str(index), question=f"problem {index}", answers=("right",))
        world = World(
            quality=WORLDS[flags.world],
            seed=seed,
            index=index,
            prompt=steps.prompt(problem.question),
            candidates=flags.candidates,
        )
        tree, own_rollouts, own_idle = grow(world, problem, config, flags.expansions)
        correct = {tree.response_text(leaf) for leaf in tree.answers() if tree.correct[leaf] == 1}
        found.append(len(correct))
        solved.append(bool(correct))
        rollouts, idle = rollouts + own_rollouts, idle + own_idle
        for node in range(tree.size):
            if tree.visits[node] >= 4:
                open_children = [child for child in tree.children(node) if tree.kind[child] == Kind.STEP]
                viable += len(open_children)
                tried += sum(bool(tree.children(child)) for child in open_children)
    return [float(np.mean(found)), float(np.mean(solved)), idle / rollouts, tried / max(viable, 1)]


def main() -> None:
    """Measures all rules and prints a line each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", choices=tuple(WORLDS), default="mistakes")
    parser.add_argument("--mode", choices=("terminal", "ppm"), default="terminal")
    parser.add_argument("--first_answer_only", action="store_true")
    parser.add_argument("--exploration", type=float, default=2.0)
    for name, value in {
        "first_seed": 0,
        "seeds": 8,
        "problems": 40,
        "expansions": 40,
        "candidates": 6,
        "depth": 8,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    flags = parser.parse_args()
    seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
    results = {
        rule: np.array([measure(flags.mode, rule, seed, flags) for seed in seeds])  # [seeds, measures]
        for rule in RULES
    }
    for rule, values in results.items():
        line = {"rule": rule, **RULES[rule], **vars(flags)}
        gains = values - results[PUBLISHED]
        for i, name in enumerate(MEASURES):
            line[name], line[f"{name}_error"] = _mean_and_error(values[:, i])
            if rule != PUBLISHED:
                line[f"{name}_gain"], line[f"{name}_gain_error"] = _mean_and_error(gains[:, i])
        print(json.dumps(line), flush=True)


def _drive(asking: Generator, world: World) -> None:
    """Runs `expand` to its end."""
    ask = next(asking, None)
    while ask is not None:
        try:
            ask = asking.send(world.answer(ask))
        except StopIteration:
            return


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return round(float(values.mean()), 4), round(float(values.std(ddof=1) / math.sqrt(len(values))), 4)


if __name__ == "__main__":
    main()
