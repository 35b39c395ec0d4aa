"""Draws follow the distribution that was asked for, and equal a plain way to draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rstar_jax.decoding.sampling import Sampling, draw

ROWS, VOCABULARY, PADDED = 2000, 700, 768


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(size=PADDED).astype(np.float32) * 2


def drawn(logits, sampling, rows=ROWS):
    keys = jax.random.split(jax.random.key(1), rows)
    many = jnp.broadcast_to(jnp.asarray(logits), (rows, len(logits)))
    tokens, logprobs = jax.jit(draw, static_argnums=3)(many, VOCABULARY, keys, sampling)
    return np.asarray(tokens), np.asarray(logprobs)


def softmax(logits, temperature=1.0):
    shares = np.exp((logits[:VOCABULARY] - logits[:VOCABULARY].max()).astype(np.float64) / temperature)
    return shares / shares.sum()


def fits(tokens, shares):
    """Whether counts of tokens fit their shares (chi-square, five standard deviations)."""
    expected = shares * len(tokens)
    counts = np.bincount(tokens, minlength=len(shares))
    likely = expected > 10
    square = np.sum((counts[likely] - expected[likely]) ** 2 / expected[likely])
    return square < likely.sum() + 5 * np.sqrt(2 * likely.sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax(logits, temperature):
    tokens, logprobs = drawn(logits, Sampling(temperature=temperature), 20_000)
    assert fits(tokens, softmax(logits, temperature))
    assert tokens.max() < VOCABULARY
    np.testing.assert_allclose(logprobs, np.log(softmax(logits))[tokens], atol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.0), Sampling(top_k=5), Sampling(top_p=0.9)])
def test_padding_is_never_drawn_and_changes_nothing(logits, sampling):
    padded = np.where(np.arange(PADDED) < VOCABULARY, logits, 1e4).astype(np.float32)
    tokens, logprobs = drawn(padded, sampling)
    expected, expected_logprobs = drawn(logits, sampling)
    assert tokens.tolist() == expected.tolist()
    np.testing.assert_allclose(logprobs, expected_logprobs, atol=1e-5)


def test_greedy(logits):
    tokens, _ = drawn(logits, Sampling(temperature=0.0), 3)
    assert set(tokens) == {int(np.argmax(logits[:VOCABULARY]))}


def test_top_k(logits):
    tokens, logprobs = drawn(logits, Sampling(top_k=5), 20_000)
    best = np.argsort(logits[:VOCABULARY])[-5:]
    assert set(tokens) == set(best)
    shares = np.where(np.isin(np.arange(VOCABULARY), best), softmax(logits), 0)
    assert fits(tokens, shares / shares.sum())
    np.testing.assert_allclose(logprobs, np.log(softmax(logits))[tokens], atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9])
def test_top_p_is_the_smallest_set_that_reaches_it(logits, top_p, temperature):
    tokens, _ = drawn(logits, Sampling(top_p=top_p, temperature=temperature), 20_000)
    shares = softmax(logits, temperature)
    order = np.argsort(-shares)
    inside = order[: int(np.searchsorted(np.cumsum(shares[order]), top_p)) + 1]
    assert set(tokens) <= set(inside)
    kept = np.where(np.isin(np.arange(VOCABULARY), inside), shares, 0)
    assert fits(tokens, kept / kept.sum())


def test_a_draw_depends_on_its_row_alone(logits):
    keys = jax.random.split(jax.random.key(1), 8)
    many = np.random.default_rng(1).normal(size=(8, PADDED)).astype(np.float32)
    together, _ = draw(jnp.asarray(many), VOCABULARY, keys, Sampling())
    backwards, _ = draw(jnp.asarray(many[::-1]), VOCABULARY, keys[::-1], Sampling())
    assert together.tolist() == backwards[::-1].tolist()


@pytest.mark.parametrize("vocabulary", [7, 129, 1536, 151_936])
def test_vocabularies_of_all_sizes(vocabulary):
    """Columns and their pieces come out even or not; the only token that can be drawn is found."""
    rows = 4
    wanted = np.array([0, 1, vocabulary // 2, vocabulary - 1])
    only = np.full((rows, vocabulary), -np.inf, np.float32)
    only[np.arange(rows), wanted] = 1.0
    tokens, _ = draw(jnp.asarray(only), vocabulary, jax.random.split(jax.random.key(0), rows), Sampling())
    assert tokens.tolist() == wanted.tolist()


@pytest.mark.parametrize("fault", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_faults_are_named(fault):
    with pytest.raises(ValueError, match=next(iter(fault))):
        Sampling(**fault)
