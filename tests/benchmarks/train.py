"""Training speed of a checkpoint on solutions of GSM8K, beside transformers and torch: prints one JSON line.

    python -m tests.benchmarks.train --model=FOLDER [--problems=FILE] [--peer=PYTHON] [--steps=4]

Steps of 8 rows of 256 tokens in fp32, of full fine-tuning with AdamW: ours, then the peer's, in the same minutes.
`ratio` is ours by theirs; peak_fraction is that of a large fp32 matrix product. packed: real tokens a second where rows
of 512 hold as many solutions as there is room for, by those of one solution a row in buckets. lora: a step with
adapters of rank 16 by a full one, and the bytes of what is trained and of its moments. PYTHON is one that has torch and
transformers.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np

from rstar_jax import models
from rstar_jax.models import Lora, lora, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.problems import jsonl
from rstar_jax.training import ProgramConfig, TrainingConfig, batches, losses, throughput, trainer
from tests.benchmarks import measure

ROWS, LENGTH, LONG = 8, 256, 512


def examples(model: models.Policy, file: pathlib.Path) -> list[batches.PolicyExample]:
    """Questions with their solutions, the solution to be learned."""
    found = []
    for row in jsonl.read_rows(str(file), ("question",)):
        prompt = model.tokenizer.encode(row["question"] + "\n")
        response = model.tokenizer.encode(row.get("solution") or row.get("answer"))
        tokens = np.array(prompt + response, np.int32)
        if len(tokens) <= LONG:
            found.append(batches.PolicyExample(tokens=tokens, learn=np.arange(len(tokens)) >= len(prompt)))
    return found


def seconds_a_step(model: models.Policy, batch_at, config: TrainingConfig) -> float:
    """The least of some steps, after the first, which compiles."""
    config = dataclasses.replace(config, steps=config.steps + 1)
    ends: list[float] = []
    if config.lora is not None:
        model = lora.with_adapters(model, config.lora, 0)
    loss = functools.partial(losses.policy_loss, model.config, config.program)
    trainer.train(
        loss,
        model.parameters,
        batch_at,
        config,
        model.mesh,
        on_step=lambda step, values, speed: ends.append(time.perf_counter()),
        trained=parameters.is_trained if config.lora is None else parameters.is_adapted,
    )
    return float(np.min(np.diff(ends)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--problems", default="../shared/benchmarks/gsm8k_train.jsonl")
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--steps", type=int, default=4)
    flags = parser.parse_args()
    mesh = make_mesh(MeshConfig(data=-1, cpu_devices=os.cpu_count()))  # as gin/local.gin: a device a core
    model = models.load(flags.model, mesh, "float32")
    config = TrainingConfig(steps=flags.steps, batch=ROWS, learning_rate=1e-5, buckets=(LENGTH,))
    rng = np.random.default_rng(0)
    rows = [
        batches.PolicyExample(tokens=rng.integers(0, 1000, LENGTH).astype(np.int32), learn=np.arange(LENGTH) > 0)
        for _ in range(ROWS)
    ]
    full = batches.policy_batch(rows, (LENGTH,))
    ours = seconds_a_step(model, lambda step: full, config)
    peer = subprocess.run(
        [flags.peer, str(pathlib.Path(__file__).with_name("torch_train.py")), flags.model, str(flags.steps)],
        capture_output=True,
        text=True,
    )
    theirs = json.loads(peer.stdout)["seconds"] if peer.returncode == 0 else None
    peak = measure.peak_flops("float32")
    line = {
        "device": jax.devices()[0].device_kind,
        "seconds_a_step": ours,
        "tokens_per_second": ROWS * LENGTH / ours,
        "peak_fraction": throughput.operations(model.config, full) / ours / peak,
        "peer_seconds_a_step": theirs,
        "ratio": None if theirs is None else theirs / ours,
    }
    solutions = examples(model, pathlib.Path(flags.problems))
    own = [solutions[i] for i in rng.permutation(len(solutions))[: 2 * ROWS]]
    padded = batches.policy_batch(own, (128, 192, 256, 384, LONG))
    packed = batches.policy_batch(own, (LONG,), packed=True)
    config = dataclasses.replace(config, steps=2, program=ProgramConfig(microbatch=4))
    kinds = {"padded": padded, "packed": packed}
    times = {name: seconds_a_step(model, lambda step, own=batch: own, config) for name, batch in kinds.items()}
    real = sum(map(len, own))
    line |= {
        "real_tokens_per_second": {name: real / value for name, value in times.items()},
        "packing_gain": times["padded"] / times["packed"],
    }
    adapted = dataclasses.replace(config, lora=Lora(rank=16), program=ProgramConfig())
    line |= {"lora_step_by_full": seconds_a_step(model, lambda step: full, adapted) / ours}
    learned, _ = parameters.split(lora.with_adapters(model, adapted.lora, 0).parameters, parameters.is_adapted)
    line |= {
        "lora_state_bytes": 12 * parameters.count(learned),
        "full_state_bytes": 12 * parameters.count(model.parameters),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
