"""Decoding and training speed of the embedded default against this machine's matrix product: prints one JSON line.

    python -m tests.benchmarks.local

decode: candidates under full batches of shared prefixes; train: one step of the policy. The needed operations are 2 (6)
a parameter and token; the peak is that of a large fp32 matrix product, measured in the same run.
"""

import dataclasses
import functools
import json
import time

import numpy as np

import gin
from rstar_jax import configuration
from rstar_jax.decoding import Engine
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.models import Decoder, parameters
from rstar_jax.partitioning import make_mesh
from rstar_jax.search import Prefix
from rstar_jax.training import losses, trainer
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests.benchmarks import measure

REPEATS = 5


def main() -> None:
    """Measures both and prints the line."""
    configuration.parse([], [])
    config = gin.get_configurable(EvolutionConfig)()
    mesh = make_mesh(config.mesh)
    model, decoding, training = config.base.model, config.decoding, config.rounds[0].policy
    tokenizer = Tokenizer.train(["a = 1 + 2"] * 10, model.vocabulary_size)
    policy = parameters.initialise(Decoder, model, mesh, 0)
    count = parameters.count(policy)
    rng = np.random.default_rng(0)

    rows, length = 64, 80
    prefixes = [
        Prefix(key=(i,), text="", tokens=tuple(int(t) for t in rng.integers(11, len(tokenizer), length)))
        for i in range(rows)
    ]
    candidates = config.rounds[0].passes[0].search.candidates
    engine = Engine(model, tokenizer, mesh, decoding, policy=policy)

    def expand() -> None:
        engine.begin()
        engine.expand(prefixes, candidates)

    expand_seconds = measure.median_seconds(expand)
    before = engine.stats.copy()
    expand()
    stats = engine.stats.since(before)
    sampled = stats.sampled_tokens

    shape = (training.batch, training.buckets[-1])
    batch = {
        "tokens": rng.integers(11, model.vocabulary_size, shape).astype(np.int32),
        "segments": np.ones(shape, np.int32),
        "positions": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
        "learn": np.ones(shape, bool),
    }
    seconds: list[float] = []

    def on_step(step: int, metrics: dict[str, float], speed: dict[str, float]) -> None:
        seconds.append(time.perf_counter())

    training = dataclasses.replace(training, steps=3 * REPEATS, epochs=None, learning_rate=1e-3)
    loss = functools.partial(losses.policy_loss, model, training.program)
    trainer.train(loss, policy, lambda step: batch, training, mesh, on_step=on_step)
    step_seconds = float(np.min(np.diff(seconds)))

    peak = measure.peak_flops("float32")
    trained = shape[0] * shape[1]
    line = {
        "parameters": count,
        "gemm_peak_flops": peak,
        "decode_tokens_per_second": sampled / expand_seconds,
        "expansions_per_second": rows / expand_seconds,
        "lane_utilisation": stats.lane_utilisation,
        "decode_peak_fraction": 2 * count * (sampled + rows * length) / expand_seconds / peak,
        "train_tokens_per_second": trained / step_seconds,
        "train_peak_fraction": 6 * count * trained / step_seconds / peak,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
