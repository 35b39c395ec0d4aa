"""Candidate steps scored under shared prefixes, against encoding each candidate with its prefix. One JSON line.

    python -m tests.benchmarks.score --model=FOLDER --questions=FILE [--prompts=8 --candidates=16 --tokens=48]

Ours scores candidates behind prefixes that are in the pool already, as in a search, where all but a tree's first prefix
are. The peer is what the released code does: the whole text of each candidate anew, in batches of one prefix's
candidates, by transformers on the same weights. Tokens a second count the candidates' own tokens.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from rstar_jax.decoding import DecodingConfig, Engine
from rstar_jax.decoding.shards import compiled_programs
from rstar_jax.models import parameters
from rstar_jax.search import Prefix
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests.benchmarks import measure

PAGE = 16


def texts(flags: argparse.Namespace, tokenizer: Tokenizer) -> tuple[list, list]:
    """Prompts, lengthened to `prefix` tokens by repeating them, and random candidates."""
    rng = np.random.default_rng(0)
    prompts = [tokenizer.encode(text) for text in measure.prompts(flags.questions, flags.prompts)]
    prompts = [(own * (flags.prefix // len(own) + 1))[-flags.prefix :] for own in prompts]
    shape = (flags.prompts, flags.candidates, flags.tokens)
    return prompts, rng.integers(100, len(tokenizer), shape).tolist()


def ours(flags: argparse.Namespace) -> dict[str, float]:
    policy, tokenizer = measure.load(flags)
    config = policy.config
    ppm = parameters.preference_from_policy(config, policy.parameters, policy.mesh)
    prompts, candidates = texts(flags, tokenizer)
    longest, step = -(-flags.prefix // 64) * 64, -(-flags.tokens // PAGE) * PAGE
    decoding = DecodingConfig(
        max_prefix_tokens=longest,
        page=PAGE,
        pages=8 + (flags.prompts * (longest + flags.candidates * step)) // PAGE // flags.data,
        prefix_buckets=(longest,),
        node_buckets=(1, flags.prompts),
        extend_buckets=(step, 512),
        score_rows=flags.candidates,
        extend_slots=4096,
    )
    engine = Engine(config, tokenizer, policy.mesh, decoding, ppm=ppm)
    prefixes = [Prefix(key=(i,), text="", tokens=tuple(tokens)) for i, tokens in enumerate(prompts)]

    def run(seed: int) -> float:
        engine.begin()
        first = [[own[0]] for own in candidates]
        engine.score(prefixes, first)  # the prefixes are in the pool now
        others = [[tuple(np.roll(tokens, seed + 1)) for tokens in own] for own in candidates]
        start = time.perf_counter()
        engine.score(prefixes, others)
        return time.perf_counter() - start

    run(0)
    programs = compiled_programs()
    peaks = [measure.peak_flops(flags.dtype)]
    before = engine.stats.copy()
    seconds = min(run(seed) for seed in range(1, flags.repeats + 1))
    peaks.append(measure.peak_flops(flags.dtype))
    tokens = flags.prompts * flags.candidates * flags.tokens
    needed = measure.operations(config, tokens, 0, flags.prefix + flags.tokens / 2)
    scored = engine.stats.since(before).scored_tokens / flags.repeats - flags.prompts * (flags.prefix + flags.tokens)
    return {
        "tokens_per_second": tokens / seconds,
        "peak_fraction": needed / seconds / (sum(peaks) / 2),
        "peak_memory_bytes": measure.peak_memory_bytes(),
        "computed_per_unique_token": scored / tokens,
        "recompilations": compiled_programs() - programs,
    }


def by_transformers(flags: argparse.Namespace) -> float:
    """Tokens a second of encoding prefix and candidate together, one prefix's candidates a batch."""
    import torch

    model, device = measure.load_transformers(flags)
    prompts, candidates = texts(flags, Tokenizer.load(flags.model))
    start = time.perf_counter()
    with torch.no_grad():
        for prompt, own in zip(prompts, candidates, strict=True):
            ids = torch.tensor([[*prompt, *tokens] for tokens in own], device=device)
            model.model(ids, use_cache=False).last_hidden_state[:, -1].float().cpu()
    return flags.prompts * flags.candidates * flags.tokens / (time.perf_counter() - start)


def main() -> None:
    parser = measure.arguments(prompts=8, candidates=16, tokens=48, prefix=650)
    parser.add_argument("--no-peer", action="store_true")
    flags = parser.parse_args()
    line = {"model": pathlib.Path(flags.model).name, "device": jax.default_backend(), **ours(flags)}
    try:
        peer = None if flags.no_peer else by_transformers(flags)
    except ImportError:
        peer = None
    line["peer_tokens_per_second"] = peer
    line["ratio"] = None if peer is None else line["tokens_per_second"] / peer
    print(json.dumps(line))


if __name__ == "__main__":
    main()
