"""In bfloat16 the engine draws, keeps and scores what a full recompute in bfloat16 gives, within its rounding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rstar_jax.decoding import Engine
from rstar_jax.models import Decoder, PreferenceModel, attention, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.search import Prefix
from tests.decoding.test_engine import CONFIG, MODEL, STOPS, TOKENIZER, prefixes

BF16 = dataclasses.replace(MODEL, dtype="bfloat16")
LOOSE = 0.15  # of a log-probability or score: bfloat16 has eight bits


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


@pytest.fixture(scope="module")
def models(mesh):
    policy = jax.tree.map(lambda leaf: leaf * 2.0, parameters.initialise(Decoder, BF16, mesh, 0))
    return policy, parameters.initialise(PreferenceModel, BF16, mesh, 1)


def hidden_states(decoder, tokens):
    positions = jnp.arange(len(tokens))[None]
    rows = attention.layout(jnp.ones((1, len(tokens)), bool))
    return decoder(jnp.array([tokens]), positions, attention.whole(rows))[0][0]


def test_log_probabilities_are_those_of_a_full_recompute(mesh, models):
    policy, _ = models
    engine = Engine(BF16, TOKENIZER, mesh, CONFIG, policy=policy, seed=3)
    decoder = parameters.bind(Decoder, BF16, policy)
    for prefix, steps in zip(prefixes(), engine.expand(prefixes(), 3, stops=STOPS), strict=True):
        for step in steps:
            if step.stop not in STOPS:  # an end of text is drawn, and no token of the step
                continue
            states = hidden_states(decoder, (*prefix.tokens, *step.tokens))
            logits = jax.nn.log_softmax(decoder.logits(states)[:, : len(TOKENIZER)].astype(jnp.float32))
            first = len(prefix.tokens) - 1
            each = logits[jnp.arange(first, first + len(step.tokens)), jnp.array(step.tokens)]
            assert abs(step.logprob - float(each.sum())) < LOOSE * len(step.tokens)


def test_scores_are_those_of_a_full_recompute_however_they_are_batched(mesh, models):
    policy, ppm = models
    whole = parameters.bind(PreferenceModel, BF16, ppm)
    asked = prefixes()
    candidates = [[tuple(range(12 + i, 16 + i + j)) for j in range(3)] for i in range(len(asked))]
    together = Engine(BF16, TOKENIZER, mesh, CONFIG, policy=policy, ppm=ppm).score(asked, candidates)
    engine = Engine(BF16, TOKENIZER, mesh, CONFIG, policy=policy, ppm=ppm)
    alone = [engine.score([prefix], [own])[0] for prefix, own in zip(asked, candidates, strict=True)]
    for prefix, own, one, other in zip(asked, candidates, together, alone, strict=True):
        expected = [float(whole.values(hidden_states(whole.decoder, (*prefix.tokens, *c))[-1])) for c in own]
        np.testing.assert_allclose(one, expected, atol=LOOSE)
        np.testing.assert_allclose(one, other, atol=LOOSE)


def test_what_was_drawn_is_gone_on_from_as_if_it_had_been_encoded(mesh, models):
    policy, _ = models
    engine = Engine(BF16, TOKENIZER, mesh, CONFIG, policy=policy, seed=3)
    rows = engine.expand(prefixes(), 8, stops=STOPS)
    behind = [
        Prefix(key=(*prefix.key, i), text="", tokens=prefix.tokens + step.tokens)
        for prefix, row in zip(prefixes(), rows, strict=True)
        for i, step in enumerate(row)
        if step.stop in STOPS and len(prefix.tokens + step.tokens) <= CONFIG.max_prefix_tokens
    ]
    fresh = Engine(BF16, TOKENIZER, mesh, CONFIG, policy=policy, seed=3)
    pairs = [
        (ours, theirs)
        for one, other in zip(*(own.expand(behind, 2, stops=STOPS) for own in (engine, fresh)), strict=True)
        for ours, theirs in zip(one, other, strict=True)
    ]
    same = [ours.tokens[:1] == theirs.tokens[:1] for ours, theirs in pairs]
    assert pairs and np.mean(same) > 0.8  # a draw may flip where two tokens are as likely
