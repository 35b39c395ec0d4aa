"""A scripted world for search: a policy that draws from hashes, a scorer, code that ends after a delay, a grader.

Problems are sums of small numbers; the policy adds, forgets, fails, repeats itself and answers too early.
"""

import hashlib
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from rstar_jax.problems.problem import Problem
from rstar_jax.search import SearchConfig
from rstar_jax.search.protocols import Step
from rstar_jax.trajectory import markers
from rstar_jax.verifier.protocol import Outcome, Verdict

CONFIG = SearchConfig(
    candidates=4,
    rollouts=8,
    max_depth=6,
    exploration=2.0,
    value_mode="terminal",
    max_consecutive_errors=1,
    max_prefix_tokens=2000,
)


def problems(count: int) -> list[Problem]:
    return [Problem(id=f"sum_{i}", question=f"What is {i} + {i + 1}?", answers=(str(2 * i + 1),)) for i in range(count)]


def encode(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def decode(tokens) -> str:
    return bytes(tokens).decode()


def step(text: str, stop: str = markers.END_OF_STEP, logprob: float = -1.0) -> Step:
    text = text + stop if stop in markers.STEP_STOPS else text
    return Step(text=text, tokens=encode(text), logprob=logprob, stop=stop)


def draw(*key) -> random.Random:
    return random.Random(hashlib.sha256(repr(key).encode()).digest())


class AtOnce:
    """A sampler that has everything as soon as it is asked."""

    def submit(self, prefix, n, *, stops):
        future = Future()
        future.set_result(self.expand([prefix], n, stops=stops)[0])
        return future

    def advance(self):
        pass

    def begin(self):
        pass


class Sampler(AtOnce):
    """Draws by (key, sample) alone. Remembers the prefixes that it was asked to expand."""

    def __init__(self):
        self.asked = []

    def encode(self, text):
        return encode(text)

    def expand(self, prefixes, n, *, stops):
        self.asked += prefixes
        return [[self._step(prefix, i, stops) for i in range(n)] for prefix in prefixes]

    def _step(self, prefix, i, stops):
        rng = draw(prefix.key, i)
        path = prefix.text.split("with code.")[-1]
        if markers.END_OF_OUTPUT in path:
            number = path.split(markers.OUTPUT)[-1].split(markers.END_OF_OUTPUT)[0]
            return step(f"\n{markers.ANSWER}\\boxed{{{number}}}", markers.END_OF_ANSWER)
        numbers = [int(word.strip("?")) for word in path_question(prefix.text) if word.strip("?").isdigit()]
        if markers.END_OF_STEP not in stops:
            return step(f"{markers.CODE}\nprint({numbers[0]} + {rng.choice(numbers)})\n", markers.END_OF_CODE)
        if not path:
            return step(f"{markers.CODE}\nx = {rng.choice(numbers)}\n")
        kind = rng.random()
        if kind < 0.1:
            return step("\nx = undefined_name\n")
        if kind < 0.15:
            return step("\nx = 'never ends", "length")
        if kind < 0.2:
            return step("\nprint(x)", "")
        if kind < 0.5:
            return step(f"\nx = x + {rng.choice(numbers)}\nprint('x', x)\n")
        return step("\nprint(x)\n", markers.END_OF_CODE)


def path_question(text: str) -> list[str]:
    return text.split(f"{markers.USER}:\n")[1].split(f"\n{markers.ASSISTANT}")[0].split()


def run_code(prefix: str, candidate: str) -> Outcome:
    printed = []
    world = {"print": lambda *words: printed.append(" ".join(map(str, words)) + "\n")}
    try:
        exec(prefix, world)
    except Exception:
        return Outcome(verdict=Verdict.REJECTED)
    printed.clear()
    try:
        exec(candidate, world)
    except Exception as error:
        return Outcome(verdict=Verdict.ERROR, error=f"{type(error).__name__}: {error}")
    return Outcome(verdict=Verdict.OK, output="".join(printed))


class Verifier:
    """Runs in this thread, or in threads that end in a random order when `jitter` is given."""

    def __init__(self, jitter: float = 0.0):
        self.jitter = jitter
        self.pool = ThreadPoolExecutor(4) if jitter else None
        self.requests = []

    def submit(self, request):
        self.requests.append(request)
        if self.pool:
            return self.pool.submit(self._run, request)
        future = Future()
        future.set_result(self._run(request))
        return future

    def _run(self, request):
        time.sleep(random.random() * self.jitter)
        return [run_code(request.prefix, candidate) for candidate in request.candidates]


class Scorer:
    """A value in [-1, 1] from the text alone. Remembers what it scored."""

    def __init__(self):
        self.scored = []

    def score(self, prefixes, candidates):
        self.scored += [decode(tokens) for row in candidates for tokens in row]
        return [
            np.array([draw(prefix.text, tuple(tokens)).uniform(-1, 1) for tokens in row], np.float32)
            for prefix, row in zip(prefixes, candidates, strict=True)
        ]


class Grader:
    """Equality of strings, with one of several. Remembers the pairs."""

    def __init__(self):
        self.pairs = []

    def submit(self, pair):
        future = Future()
        future.set_result(self.grade([pair])[0])
        return future

    def grade(self, pairs):
        self.pairs += pairs
        return [answer == golds or (isinstance(golds, tuple) and answer in golds) for golds, answer in pairs]


class Script(AtOnce):
    """A policy that knows its steps by what the path says after the prompt."""

    def __init__(self, steps_by_path: dict[str, list[Step]]):
        self.steps_by_path = steps_by_path

    def encode(self, text):
        return encode(text)

    def expand(self, prefixes, n, *, stops):
        return [self.steps_by_path[prefix.text.split("with code.")[1]][:n] for prefix in prefixes]
