"""Whatever was inserted, drawn, evicted and drawn again: the pool holds what a fresh prefill would put there."""

import dataclasses
import random

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rstar_jax.decoding import Engine, cache
from rstar_jax.decoding.encoder import tables
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.search import Prefix
from rstar_jax.trajectory import markers
from tests.decoding.test_engine import CONFIG, MODEL, STOPS, TOKENIZER, make_policy

# The room of a block is longer than the longest edge, as in the defaults; and a small pool gives up pages.
ROOMY = dataclasses.replace(CONFIG, max_prefix_tokens=64, prefix_buckets=(32, 64), extend_buckets=(4, 8), pages=200)
TIGHT = dataclasses.replace(ROOMY, pages=60)
BLOCK_STOPS = (markers.END_OF_CODE, markers.END_OF_ANSWER)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


@pytest.fixture(scope="module")
def policy(mesh):
    return make_policy(mesh)


@jax.jit
def held(pool, table, fill):
    """Keys and values of a path."""
    return cache.gather(MODEL, pool, table, fill)


def check_pages(engine: Engine, policy, mesh) -> int:
    """Compares every ready edge with what a fresh engine encodes in pages that are laid out alike; their number."""
    fresh = Engine(MODEL, TOKENIZER, mesh, dataclasses.replace(engine.config, pages=400), policy=policy)
    checked = 0
    for edge in list(engine._trees[0].edges()):
        if "policy" not in edge.ready or any("policy" not in above.ready for above in edge.path()):
            continue
        twin = fresh._trees[0]._root
        for own in edge.path():
            twin = next(
                (child for child in twin.children.get(own.tokens[0], ()) if child.tokens == own.tokens), None
            ) or fresh._trees[0]._grow(twin, own.tokens)
        fresh._policy.prepare([(0, twin)])
        ours, theirs = (
            held(own._policy.cache, *tables([(0, end.path())], 1, engine.config))
            for own, end in ((engine, edge), (fresh, twin))
        )
        for one, other in zip(jax.tree.leaves(ours.layers), jax.tree.leaves(theirs.layers), strict=True):
            valid = np.asarray(ours.valid)[0]
            np.testing.assert_allclose(_slots(one, valid), _slots(other, valid), rtol=1e-3, atol=1e-3)
        if edge.hidden:
            ours, theirs = (own._policy.cache.hidden[end.pages[-1]] for own, end in ((engine, edge), (fresh, twin)))
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        checked += 1
    return checked


def _slots(array, valid):
    """The slots of an array that hold tokens, whichever axis they are on."""
    axis = next(axis for axis, size in enumerate(array.shape) if size == len(valid))
    return np.compress(valid, np.asarray(array), axis=axis)


def block_prefixes(seed: int) -> list[Prefix]:
    """Prompts that begin alike and part within a page or at its end."""
    draw = random.Random(seed)
    tokens = [draw.randrange(11, len(TOKENIZER)) for _ in range(20)]
    ends = [draw.randrange(3, 16) for _ in range(4)]
    return [
        Prefix(key=(seed, i), text="", tokens=(*tokens[:end], *(draw.randrange(11, len(TOKENIZER)) for _ in range(i))))
        for i, end in enumerate(ends)
    ]


@pytest.mark.parametrize("config", [ROOMY, TIGHT], ids=["roomy", "tight"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    actions=st.lists(st.sampled_from(["block", "step", "again", "insert"]), min_size=3, max_size=6),
)
def test_every_ready_page_equals_a_fresh_prefill(policy, mesh, config, seed, actions):
    draw = random.Random(seed)
    engine = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=seed)
    known = block_prefixes(seed)
    asked: list[Prefix] = []
    for action in actions:
        if action == "insert":
            tree = engine._trees[0]
            tokens = list(draw.choice(known).tokens)
            tokens[draw.randrange(len(tokens))] = draw.randrange(11, len(TOKENIZER))
            tree.insert(tokens)
            continue
        prefix = draw.choice(asked if action == "again" and asked else known)
        asked.append(prefix)
        [steps] = engine.expand([prefix], 16, stops=STOPS if action == "step" else BLOCK_STOPS)
        for step in steps:
            tokens = (*prefix.tokens, *step.tokens)
            if len(tokens) <= 30:
                known.append(Prefix(key=(*prefix.key, len(known)), text="", tokens=tokens))
    check_pages(engine, policy, mesh)


def test_a_block_longer_than_the_longest_edge_is_gone_on_from(policy, mesh):
    """In the engine that drew it as in one that encodes it."""
    engine = Engine(MODEL, TOKENIZER, mesh, ROOMY, policy=policy, seed=3)
    prefixes = block_prefixes(5)
    rows = engine.expand(prefixes, 40, stops=BLOCK_STOPS)
    long = [
        Prefix(key=(*prefix.key, i), text="", tokens=prefix.tokens + step.tokens)
        for prefix, row in zip(prefixes, rows, strict=True)
        for i, step in enumerate(row)
        if step.stop in BLOCK_STOPS and len(step.tokens) > ROOMY.extend_buckets[-1]
    ]
    assert len(long) > 2
    assert check_pages(engine, policy, mesh) > 3
    fresh = Engine(MODEL, TOKENIZER, mesh, ROOMY, policy=policy, seed=3)
    ours, theirs = (own.expand(long, 2, stops=STOPS) for own in (engine, fresh))
    assert [[s.tokens for s in row] for row in ours] == [[s.tokens for s in row] for row in theirs]
