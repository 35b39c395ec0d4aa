"""Candidates under shared prompts: our engine and others, same weights and prompts, in one run. One JSON line.

    python -m tests.benchmarks.decode --model=FOLDER --questions=FILE [--prompts=8 --candidates=16 --tokens=48]

Tokens a second count sampled tokens over the time of everything, prompts included, with every program compiled before.
peak_fraction: the time that the needed operations take at the peak of a matrix product, or the needed bytes at the peak
of a copy, whichever is longer, over the time that passed; every prompt token is needed once, shared ones once for all.
Peers that are installed take part: transformers (num_return_sequences), vLLM, Tunix's sampler;
`peer_tokens_per_second` is the fastest's.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from rstar_jax.decoding import DecodingConfig, Engine
from rstar_jax.decoding.shards import compiled_programs
from rstar_jax.search import Prefix
from tests.benchmarks import measure


def ours(flags: argparse.Namespace) -> dict[str, float]:
    policy, tokenizer = measure.load(flags)
    config = policy.config
    prompts = [tokenizer.encode(text) for text in measure.prompts(flags.questions, flags.prompts)]
    longest = max(map(len, prompts))
    page = 16
    decoding = DecodingConfig(
        max_prefix_tokens=-(-longest // 64) * 64,
        max_block_tokens=flags.tokens,
        page=page,
        pages=8 + (-(-flags.tokens // page) * flags.candidates + 64) * flags.prompts // flags.data,
        prefix_buckets=(-(-longest // 64) * 64,),
        node_buckets=tuple(sorted({1, flags.prompts // flags.data // 2 or 1, flags.prompts // flags.data})),
        samples_per_lane=flags.samples_per_lane,
        chunk_steps=32,
        extend_buckets=(64, 128, 256, 512),
    )
    engine = Engine(config, tokenizer, policy.mesh, decoding, policy=policy.parameters)
    prefixes = [Prefix(key=(i,), text="", tokens=tokens) for i, tokens in enumerate(prompts)]

    def run() -> float:
        engine.begin()
        start = time.perf_counter()
        engine.expand(prefixes, flags.candidates, stops=())
        return time.perf_counter() - start

    run()
    programs, before = compiled_programs(), engine.stats.copy()
    peaks = [measure.peak_flops(flags.dtype)]  # before and after: a shared machine varies
    seconds = min(run() for _ in range(flags.repeats))
    stats = engine.stats.since(before)
    sampled = stats.sampled_tokens / flags.repeats
    computed = (stats.decoded_tokens + stats.encoded_tokens) / flags.repeats
    unique = sampled + measure.unique_tokens(prompts)
    steps = stats.lane_steps / flags.repeats / (flags.prompts * flags.candidates / flags.samples_per_lane)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(policy.parameters))
    context = longest + flags.tokens / 2
    needed = {
        "operations": measure.operations(config, sampled, sampled, context)
        + measure.operations(config, unique - sampled, 0, longest / 2),
        "bytes": steps * size,
    }
    peaks.append(measure.peak_flops(flags.dtype))
    peak = {"operations": sum(peaks) / len(peaks), "bytes": measure.peak_bandwidth()}
    return {
        "tokens_per_second": sampled / seconds,
        "peak_fraction": max(needed[name] / peak[name] for name in needed) / seconds,
        "needed_gflop_per_token": needed["operations"] / sampled / 1e9,
        "peak_gflops": peak["operations"] / 1e9,
        "peak_memory_bytes": measure.peak_memory_bytes(),
        "computed_per_unique_token": computed / unique,
        "lane_utilisation": stats.lane_utilisation,
        "decoding_share": stats.seconds / flags.repeats / seconds,
        "recompilations": compiled_programs() - programs,
    }


def by_transformers(flags: argparse.Namespace) -> float:
    """Tokens a second of `generate` with `num_return_sequences`, prompts padded on the left."""
    import torch
    from transformers import AutoTokenizer

    model, device = measure.load_transformers(flags)
    tokenizer = AutoTokenizer.from_pretrained(flags.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    inputs = tokenizer(measure.prompts(flags.questions, flags.prompts), return_tensors="pt", padding=True).to(device)
    start = time.perf_counter()
    with torch.no_grad():
        model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=flags.candidates,
            min_new_tokens=flags.tokens,
            max_new_tokens=flags.tokens,
        )
    if device == "cuda":
        torch.cuda.synchronize()
    return flags.prompts * flags.candidates * flags.tokens / (time.perf_counter() - start)


def by_tunix(flags: argparse.Namespace) -> float:
    """Tokens a second of Tunix's sampler, prompt by prompt: it keeps the logits of a whole batch of prompts."""
    from transformers import AutoTokenizer
    from tunix.generate.sampler import CacheConfig, Sampler
    from tunix.models.qwen2 import model, params

    fields = json.loads((pathlib.Path(flags.model) / "config.json").read_text())
    heads = fields["num_attention_heads"]
    config = model.ModelConfig(
        num_layers=fields["num_hidden_layers"],
        vocab_size=fields["vocab_size"],
        embed_dim=fields["hidden_size"],
        hidden_dim=fields["intermediate_size"],
        num_heads=heads,
        head_dim=fields["hidden_size"] // heads,
        num_kv_heads=fields["num_key_value_heads"],
        rope_theta=fields["rope_theta"],
        norm_eps=fields["rms_norm_eps"],
        use_tied_embedding=fields["tie_word_embeddings"],
    )
    dtype = jax.numpy.dtype(flags.dtype)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    tokenizer = AutoTokenizer.from_pretrained(flags.model)
    texts = measure.prompts(flags.questions, flags.prompts)
    longest = 8 + max(len(tokenizer.encode(text)) for text in texts)  # Tunix adds tokens of its own
    with mesh:
        network = params.create_model_from_safe_tensors(flags.model, config, mesh, dtype)
        cache = CacheConfig(longest + flags.tokens, config.num_layers, config.num_kv_heads, config.head_dim)
        sampler = Sampler(network, tokenizer, cache)

        def sample(text: str) -> None:
            jax.block_until_ready(
                sampler(
                    [text] * flags.candidates,
                    max_generation_steps=flags.tokens,
                    max_prompt_length=longest,
                    eos_tokens=[-1],
                    temperature=1.0,
                    top_p=1.0,
                    seed=0,
                ).tokens
            )

        sample(texts[0])
        start = time.perf_counter()
        for text in texts:
            sample(text)
    return flags.prompts * flags.candidates * flags.tokens / (time.perf_counter() - start)


def by_vllm(flags: argparse.Namespace) -> float:
    """Tokens a second of vLLM with prefix caching, whose cache is empty when the clock starts."""
    from vllm import LLM, SamplingParams

    texts = measure.prompts(flags.questions, flags.prompts)
    engine = LLM(flags.model, dtype=flags.dtype, enable_prefix_caching=True, max_model_len=2048)
    sampling = SamplingParams(
        n=flags.candidates, temperature=1.0, min_tokens=flags.tokens, max_tokens=flags.tokens, ignore_eos=True
    )
    engine.generate(texts[:1], sampling, use_tqdm=False)
    engine.reset_prefix_cache()
    start = time.perf_counter()
    engine.generate(texts, sampling, use_tqdm=False)
    return flags.prompts * flags.candidates * flags.tokens / (time.perf_counter() - start)


PEERS = {"transformers": by_transformers, "vllm": by_vllm, "tunix": by_tunix}


def main() -> None:
    parser = measure.arguments(prompts=8, candidates=16, tokens=48, samples_per_lane=1)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    flags = parser.parse_args()
    line = {"model": pathlib.Path(flags.model).name, "device": jax.default_backend(), **ours(flags)}
    peers = {}
    for name in flags.peers:
        try:
            peers[name] = PEERS[name](flags)
        except ImportError:
            continue
    fastest = max(peers.values(), default=None)
    line |= {"peers": peers, "peer_tokens_per_second": fastest}
    line["ratio"] = None if fastest is None else line["tokens_per_second"] / fastest
    print(json.dumps(line))


if __name__ == "__main__":
    main()
