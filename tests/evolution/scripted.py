"""A policy that knows every worked example and often miswrites a number: trees with both kinds of ends."""

import json
import random
import re

from rstar_jax.decoding import GREEDY
from rstar_jax.evolution.world import World
from rstar_jax.files.rows import Rows
from rstar_jax.problems import Problem, procedural
from rstar_jax.search import Step
from rstar_jax.trajectory import markers, steps
from tests.search.scripted import AtOnce

MISTAKES = 0.25


def numbers(run_dir):
    """The rows in the markers of a run, in the order of phases."""
    markers = [json.loads(path.read_text()) for path in sorted((run_dir / "done").glob("*.json"))]
    return [row for marker in sorted(markers, key=lambda marker: marker["place"]) for row in marker["rows"]]


def _nodes(question):
    """The texts that a right trajectory is made of, step by step, outputs left out."""
    problem = Problem(id="x", question=question, answers=("0",), source="chain_sum")
    *lines, last = procedural.worked_program(problem)
    texts = [line + markers.END_OF_STEP for line in lines] + [last + markers.END_OF_CODE]
    return [markers.CODE + texts[0], *texts[1:]]


class ScriptedEngine(AtOnce):
    def __init__(self, engine, tokenizer, greedy, seed):
        self.engine, self.tokenizer, self.greedy, self.seed = engine, tokenizer, greedy, seed

    def __getattr__(self, name):  # all that is not about samples is the real engine's
        return getattr(self.engine, name)

    def encode(self, text):
        return self.tokenizer.encode(text)

    def expand(self, prefixes, n, *, stops):
        found = [[self._step(prefix, i, stops) for i in range(n)] for prefix in prefixes]
        self.engine.stats.sampled_tokens += sum(len(step.tokens) for row in found for step in row)
        return found

    def _step(self, prefix, sample, stops):
        rng = random.Random(f"{self.seed}{prefix.key}{sample}")
        question = prefix.text.split(f"{markers.USER}:\n")[-1].split(f"\n{markers.ASSISTANT}")[0]
        nodes = _nodes(question)
        written = prefix.text.split(markers.ASSISTANT)[-1]  # behind worked problems, if there are any
        if markers.END_OF_OUTPUT in written:
            output = written.split(markers.OUTPUT)[1].split(markers.END_OF_OUTPUT)[0]
            text, stop = steps.boxed(output.split()[0]), markers.END_OF_ANSWER
        elif markers.END_OF_STEP in stops:
            text = nodes[written.count(markers.END_OF_STEP)]
            stop = markers.END_OF_CODE if text.endswith(markers.END_OF_CODE) else markers.END_OF_STEP
        else:
            text, stop = "".join(nodes), markers.END_OF_CODE
        if not self.greedy and rng.random() < MISTAKES and stop == markers.END_OF_STEP:
            text = re.sub(r"\d+(?=<)", lambda match: str(int(match.group()) + 1), text)
        return Step(text=text, tokens=self.tokenizer.encode(text), logprob=-1.0, stop=stop)


class ScriptedWorld(World):
    """A world with a scripted policy; its PPM, verifier and grader are real."""

    def engine(self, policy, ppm=None, *, sampling=None, seed=None):
        engine = super().engine(policy, ppm, sampling=sampling, seed=seed)
        return ScriptedEngine(engine, policy.tokenizer, sampling == GREEDY, self.seed if seed is None else seed)


def read_rows(folder):
    """The rows of a data set, in the order of problems."""
    with Rows(folder) as found:
        return sorted(found, key=lambda row: row["problem"])
