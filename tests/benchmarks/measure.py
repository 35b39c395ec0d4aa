"""What the benchmarks of models measure against: this machine's peaks, and the least that the work asks of them."""

import argparse
import json
import pathlib
import resource
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rstar_jax import configuration, models
from rstar_jax.models import DecoderConfig
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer


def arguments(**sizes: int) -> argparse.ArgumentParser:
    """The flags that benchmarks of a checkpoint have in common, and some sizes with their defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions", required=True)
    for name, value in ({"data": 1, "tensor": 1, "repeats": 2} | sizes).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="float32")
    return parser


def load(flags: argparse.Namespace) -> tuple[models.Policy, Tokenizer]:
    """The checkpoint on the mesh of the flags, and its tokenizer."""
    mesh = make_mesh(MeshConfig(data=flags.data, tensor=flags.tensor, cpu_devices=flags.data * flags.tensor))
    return models.load(flags.model, mesh, flags.dtype), Tokenizer.load(flags.model)


def load_transformers(flags: argparse.Namespace):
    """(the same checkpoint in transformers, its device). Raises: ImportError where torch is not installed."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(flags.model, dtype=getattr(torch, flags.dtype))
    return model.eval().to(device), device


def median_seconds(work: Callable[[], object], seconds: float = 3.0) -> float:
    """The median time of `work`, run for so long, after one run that compiles. Shared machines vary: not the best."""
    jax.block_until_ready(work())
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def peak_flops(dtype: str) -> float:
    """Operations a second of a large matrix product."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / median_seconds(lambda: product(matrix, matrix))


def peak_bandwidth() -> float:
    """Bytes a second of reading one large array and writing another."""
    count = 2**26 if jax.default_backend() == "cpu" else 2**29
    array = jnp.ones(count, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    return 2 * array.nbytes / median_seconds(lambda: copy(array))


def peak_memory_bytes() -> int:
    """Of the device if it says so, of this process otherwise."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prompts(questions: str, count: int) -> list[str]:
    """Few-shot prompts of the first questions of a JSONL file."""
    lines = pathlib.Path(questions).read_text().splitlines()[:count]
    preamble = configuration.find("prompts/few_shot.txt").read_text()
    return [preamble + steps.prompt(json.loads(line)["question"]) + "\n" for line in lines]


def operations(config: DecoderConfig, tokens: int, drawn: int, context: float) -> float:
    """What `tokens` tokens need, each with `context` tokens before it on average; `drawn` of them need logits."""
    heads = config.heads * config.head
    layer = config.embed * (2 * heads + 2 * config.kv_heads * config.head + 3 * config.mlp)
    return (
        tokens * config.layers * (2 * layer + 4 * heads * context) + drawn * 2 * config.embed * config.vocabulary_size
    )


def unique_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of a trie of the prompts."""
    return len({tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)})
