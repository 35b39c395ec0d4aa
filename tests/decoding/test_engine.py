"""The engine equals a naive sampler that recomputes everything, whatever is in the batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rstar_jax.decoding import DecodingConfig, Engine, batch
from rstar_jax.decoding.sampling import Sampling, draw
from rstar_jax.decoding.shards import compiled_programs
from rstar_jax.models import Decoder, DecoderConfig, PreferenceModel, attention, parameters
from rstar_jax.partitioning import MeshConfig, make_mesh
from rstar_jax.problems import Problem
from rstar_jax.search import Prefix, SchedulerConfig, search
from rstar_jax.trajectory import markers
from rstar_jax.trajectory.tokenizer import Tokenizer
from tests.search import scripted

TOKENIZER = Tokenizer.train(["a = 1 + 2\nprint(a)"], 300)
MODEL = DecoderConfig(vocabulary_size=len(TOKENIZER), layers=2, embed=32, heads=4, kv_heads=2, head=8, mlp=64)
CONFIG = DecodingConfig(
    max_prefix_tokens=32,
    max_step_tokens=12,
    max_block_tokens=20,
    page=4,
    pages=200,
    prefix_buckets=(32,),
    node_buckets=(4,),
    samples_per_lane=2,
    chunk_steps=5,
    extend_buckets=(16,),
    score_rows=2,
)
STOPS = (markers.END_OF_STEP, markers.END_OF_CODE, markers.END_OF_ANSWER)


def make_policy(mesh):
    """Random parameters, large enough that the distribution is neither flat nor certain."""
    return jax.tree.map(lambda leaf: leaf * 2.0, parameters.initialise(Decoder, MODEL, mesh, 0))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=1), jax.devices()[:1])


@pytest.fixture(scope="module")
def policy(mesh):
    return make_policy(mesh)


def prefixes(count=5):
    rng = np.random.default_rng(1)
    return [
        Prefix(key=(7, i), text="", tokens=tuple(int(t) for t in rng.integers(11, len(TOKENIZER), 3 + 4 * i)))
        for i in range(count)
    ]


@jax.jit
def _next_logits(policy, tokens, length):
    model = parameters.bind(Decoder, MODEL, policy)
    positions = jnp.arange(tokens.shape[1])[None]
    hidden, _ = model(tokens, positions, attention.whole(attention.layout(positions < length)))
    return model.logits(hidden[0, length - 1])


@jax.jit
def _full_value(ppm, tokens, length):
    model = parameters.bind(PreferenceModel, MODEL, ppm)
    positions = jnp.arange(tokens.shape[1])[None]
    hidden, _ = model.decoder(tokens, positions, attention.whole(attention.layout(positions < length)))
    return jnp.tanh(model.scores(hidden[0, length - 1]))


def naive_sample(policy, prefix, sample, seed, room, temperature=1.0):
    """One candidate by recomputing the whole sequence for every token."""
    stops = {TOKENIZER.ids[stop] for stop in (*STOPS, markers.END_OF_TEXT)}
    key = jax.random.fold_in(jax.random.wrap_key_data(batch.draw_key(seed, prefix.key)), sample)
    ids, logprob = list(prefix.tokens), 0.0
    for position in range(room):
        padded = np.zeros((1, 64), np.int32)
        padded[0, : len(ids)] = ids
        logits = _next_logits(policy, padded, len(ids))
        keys = jax.random.fold_in(key, position)[None]
        token, token_logprob = draw(logits[None], len(TOKENIZER), keys, Sampling(temperature=temperature))
        ids.append(int(token[0]))
        logprob += float(token_logprob[0])
        if ids[-1] in stops:
            break
    return ids[len(prefix.tokens) :], logprob


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_equals_naive_full_recompute(policy, mesh, temperature):
    config = dataclasses.replace(CONFIG, temperature=temperature)
    sampler = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=3)
    for prefix, candidates in zip(prefixes(), sampler.expand(prefixes(), 3, stops=STOPS), strict=True):
        for sample, step in enumerate(candidates):
            ids, logprob = naive_sample(policy, prefix, sample, 3, CONFIG.max_step_tokens, temperature)
            if ids[-1] == TOKENIZER.ids[markers.END_OF_TEXT]:
                ids = ids[:-1]
            assert step.tokens == tuple(ids)
            assert abs(step.logprob - logprob) < 1e-4


def test_draws_do_not_depend_on_the_batch(policy, mesh):
    sampler = Engine(MODEL, TOKENIZER, mesh, CONFIG, policy=policy, seed=3)
    together = sampler.expand(prefixes(), 4, stops=STOPS)
    backwards = sampler.expand(prefixes()[::-1], 4, stops=STOPS)[::-1]
    alone = [sampler.expand([prefix], 4, stops=STOPS)[0] for prefix in prefixes()]
    assert [[s.tokens for s in row] for row in together] == [[s.tokens for s in row] for row in backwards]
    assert [[s.tokens for s in row] for row in together] == [[s.tokens for s in row] for row in alone]


def test_keys_and_seed_matter(policy, mesh):
    sampler = Engine(MODEL, TOKENIZER, mesh, CONFIG, policy=policy, seed=3)
    prefix = prefixes()[2]
    other = dataclasses.replace(prefix, key=(7, 99))
    first, second = sampler.expand([prefix, other], 4, stops=STOPS)
    assert [s.tokens for s in first] != [s.tokens for s in second]
    reseeded = Engine(MODEL, TOKENIZER, mesh, CONFIG, policy=policy, seed=4)
    assert [s.tokens for s in first] != [s.tokens for s in reseeded.expand([prefix], 4, stops=STOPS)[0]]


def grow(engine, levels=2, n=8, score=False):
    """Trees from five prompts: [(prefix, its steps, their values)], tokens that had to be computed, and scored.

    Each level goes on behind the first step that a marker ended, with an output behind it at every other node.
    """
    grown, unique, scored = [], 0, 0
    nodes = prefixes()
    unique += sum(len(prefix.tokens) for prefix in nodes)
    for level in range(levels):
        rows = engine.expand(nodes, n, stops=STOPS)
        unique += sum(len(step.tokens) + (step.stop == "") for row in rows for step in row)
        ended = [[step for step in row if step.stop in STOPS] for row in rows]
        values = [[] for _ in rows]
        if score:
            values = engine.score(nodes, [[step.tokens for step in row] for row in rows])
            scored += sum(len(tokens) for row in rows for tokens in {step.tokens for step in row})
        grown += list(zip(nodes, rows, values, strict=True))
        following = []
        for i, (prefix, row) in enumerate(zip(nodes, ended, strict=True)):
            if row:
                output = (20, 21, 22) if i % 2 else ()
                tokens = prefix.tokens + row[0].tokens + output
                following.append(Prefix(key=(*prefix.key, level), text="", tokens=tokens))
                unique += len(output) if level + 1 < levels else 0
        nodes = following
    return grown, unique, scored


def outline(grown):
    return [(prefix, [(step.tokens, step.stop) for step in row]) for prefix, row, _ in grown]


@pytest.fixture(scope="module")
def ppm(policy, mesh):
    ppm = parameters.preference_from_policy(MODEL, policy, mesh)
    return ppm | {"value": 0.1 * jax.random.normal(jax.random.key(5), ppm["value"].shape)}


LONG = dataclasses.replace(CONFIG, max_prefix_tokens=64, prefix_buckets=(64,), pages=400)


@pytest.fixture(scope="module")
def reference(policy, ppm, mesh):
    return grow(Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, ppm=ppm, seed=3), levels=3, score=True)


def test_every_level_equals_naive_recompute_and_every_token_is_computed_once(policy, ppm, mesh):
    engine = Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, ppm=ppm, seed=3)
    grown, unique, scored = grow(engine, levels=3, score=True)
    assert sum(len(prefix.key) > 3 for prefix, _, _ in grown) > 1  # the third level is there
    for prefix, row, values in grown:
        for sample, (step, value) in enumerate(zip(row, values, strict=True)):
            ids, logprob = naive_sample(policy, prefix, sample, 3, LONG.max_step_tokens)
            assert step.tokens == tuple(ids[:-1] if step.stop == "" else ids)
            assert abs(step.logprob - logprob) < 1e-4
            padded = np.zeros((1, 64), np.int32)
            whole = prefix.tokens + step.tokens
            padded[0, : len(whole)] = whole
            assert abs(float(_full_value(ppm, padded, len(whole))) - value) < 5e-5
    assert engine.stats.decoded_tokens + engine.stats.encoded_tokens == unique
    assert engine.stats.scored_tokens <= scored + sum(len(p.tokens) for p in prefixes()) + 3 * len(grown)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_steps": 3, "samples_per_lane": 1},
        {"chunk_steps": 12, "samples_per_lane": 3},
        {"page": 8, "score_rows": 3},
        {"stacked": True},
        {"pages": 44, "node_buckets": (1, 4)},
    ],
)
def test_chunks_lanes_pages_and_evictions_change_nothing(policy, ppm, mesh, reference, changes):
    config = dataclasses.replace(LONG, **changes)
    engine = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, ppm=ppm, seed=3)
    grown, *_ = grow(engine, levels=3, score=True)
    assert outline(grown) == outline(reference[0])
    for (_, _, values), (_, _, expected) in zip(grown, reference[0], strict=True):
        np.testing.assert_allclose(values, expected, atol=5e-5)
    assert (engine.evicted_tokens > 0) == (config.pages == 44)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2, 2)])
def test_same_trees_on_every_mesh(policy, ppm, reference, shape):
    wide = make_mesh(MeshConfig(data=shape[0], tensor=shape[1]))
    policy = jax.device_put(policy, parameters.shardings(Decoder, MODEL, wide))
    ppm = jax.device_put(ppm, parameters.shardings(PreferenceModel, MODEL, wide))
    grown, *_ = grow(Engine(MODEL, TOKENIZER, wide, LONG, policy=policy, ppm=ppm, seed=3), levels=3, score=True)
    assert outline(grown) == outline(reference[0])
    for (_, _, values), (_, _, expected) in zip(grown, reference[0], strict=True):
        np.testing.assert_allclose(values, expected, atol=5e-5)


def test_what_no_edge_owns_is_never_read(policy, mesh, reference):
    """Pages that are free, and slots behind an edge's end, may hold anything (values finite: 0 * NaN is NaN)."""
    engine = Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, seed=3)
    (tree,) = engine._trees

    def poison():
        pages = np.array(engine._policy.cache.pages)
        used = np.zeros((len(pages), LONG.page), bool)
        for edge in tree.edges():
            for i, page in enumerate(edge.pages):
                used[page, : len(edge.tokens) - i * LONG.page] = True
        free = ~used[:, None, None, :, None]
        pages[:, :, 0] = np.where(free, np.nan, pages[:, :, 0])
        pages[:, :, 1] = np.where(free, 1e30, pages[:, :, 1])
        engine._policy.cache = engine._policy.cache._replace(
            pages=jax.device_put(pages, engine._policy.cache.pages.sharding)
        )

    expand = engine.expand

    def poisoned(*arguments, **options):
        poison()
        return expand(*arguments, **options)

    engine.expand = poisoned
    assert outline(grow(engine, levels=3)[0]) == outline(reference[0])


def test_a_pool_that_cannot_hold_a_prefix_is_refused():
    with pytest.raises(ValueError, match=r"DecodingConfig.pages \(10\) must be"):
        dataclasses.replace(CONFIG, pages=10)


def test_no_compilation_after_warm_up(policy, mesh):
    sampler = Engine(MODEL, TOKENIZER, mesh, CONFIG, policy=policy)
    sampler.expand(prefixes(), 3, stops=STOPS)
    sampler.expand(prefixes(2), 3, stops=STOPS)
    before = compiled_programs()
    for count in (1, 2, 3, 4, 5):
        sampler.expand(prefixes(count), 3, stops=STOPS)
    assert compiled_programs() == before


def test_first_token_follows_the_softmax(policy, mesh):
    sampler = Engine(MODEL, TOKENIZER, mesh, dataclasses.replace(CONFIG, max_step_tokens=1), policy=policy, seed=0)
    prefix = prefixes(1)[0]
    counts = np.zeros(len(TOKENIZER))
    for repeat in range(25):
        keyed = [dataclasses.replace(prefix, key=(repeat, i)) for i in range(8)]
        for row in sampler.expand(keyed, 32, stops=STOPS):
            for step in row:
                counts[step.tokens[0] if step.tokens else TOKENIZER.ids[markers.END_OF_TEXT]] += 1
    padded = np.zeros((1, 64), np.int32)
    padded[0, : len(prefix.tokens)] = prefix.tokens
    expected = np.asarray(jax.nn.softmax(_next_logits(policy, padded, len(prefix.tokens)))) * counts.sum()
    likely = expected > 20
    chi_square = np.sum((counts[likely] - expected[likely]) ** 2 / expected[likely])
    assert chi_square < likely.sum() + 5 * np.sqrt(2 * likely.sum())


def test_a_prefix_that_does_not_fit_is_refused(policy, mesh):
    sampler = Engine(MODEL, TOKENIZER, mesh, CONFIG, policy=policy, seed=0)
    with pytest.raises(ValueError, match="allows 1 to 32"):
        sampler.expand([Prefix(key=(1,), text="", tokens=(12,) * 33)], 2, stops=STOPS)


def test_an_ending_may_be_several_tokens(policy, mesh):
    config = dataclasses.replace(CONFIG, temperature=0.0)
    prefix = prefixes()[3]
    sampler = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=0)
    ((free,),) = sampler.expand([prefix], 1, stops=())
    assert len(free.tokens) >= 5

    class Endings:
        """The tokenizer, for which a marker is what the policy writes as its fourth and fifth token."""

        ends_of_text = TOKENIZER.ends_of_text
        decode, encode = staticmethod(TOKENIZER.decode), staticmethod(TOKENIZER.encode)
        __len__ = TOKENIZER.__len__

        def ending(self, marker):
            return free.tokens[3:5] if marker == "<end_of_code>" else (TOKENIZER.ids[marker],)

    sampler = Engine(MODEL, Endings(), mesh, config, policy=policy)
    ((cut,),) = sampler.expand([prefix], 1, stops=("<end_of_code>", "<end_of_answer>"))
    assert cut.stop == "<end_of_code>"
    assert cut.tokens == free.tokens[:5] + TOKENIZER.encode(">") and cut.text == TOKENIZER.decode(free.tokens[:5]) + ">"


def test_rows_that_pad_the_embedding_are_never_drawn(mesh):
    padded = dataclasses.replace(MODEL, vocabulary_size=MODEL.vocabulary_size + 300)
    policy = parameters.initialise(Decoder, padded, mesh, seed=1)
    config = dataclasses.replace(CONFIG, temperature=5.0)
    sampler = Engine(padded, TOKENIZER, mesh, config, policy=policy)
    drawn = {token for row in sampler.expand(prefixes(), 6, stops=STOPS) for step in row for token in step.tokens}
    assert len(drawn) > 50 and max(drawn) < len(TOKENIZER)


def test_a_window_is_kept_while_decoding_and_scoring(policy, mesh):
    windowed = dataclasses.replace(MODEL, window=5)

    @functools.partial(jax.jit, static_argnums=0)
    def last_hidden(kind, values, tokens, length):
        model = parameters.bind(kind, windowed, values)
        decoder = model if kind is Decoder else model.decoder
        positions = jnp.arange(tokens.shape[1])[None]
        rows = attention.layout(positions < length)
        hidden = decoder(tokens, positions, attention.whole(rows, windowed.window))[0][0, length - 1]
        return model.logits(hidden) if kind is Decoder else model.scores(hidden)

    def whole(kind, values, ids):
        tokens = np.zeros((1, 64), np.int32)
        tokens[0, : len(ids)] = ids
        return last_hidden(kind, values, tokens, len(ids))

    prefix = prefixes()[4]
    sampler = Engine(windowed, TOKENIZER, mesh, dataclasses.replace(CONFIG, temperature=0.0), policy=policy)
    ((step,),) = sampler.expand([prefix], 1, stops=())
    ids = list(prefix.tokens)
    for token in step.tokens:
        assert token == int(jnp.argmax(whole(Decoder, policy, ids)[: len(TOKENIZER)]))
        ids.append(token)
    ppm = parameters.preference_from_policy(windowed, policy, mesh)
    ppm["value"] = jnp.asarray(np.random.default_rng(0).normal(size=windowed.embed), jnp.float32)
    (values,) = Engine(windowed, TOKENIZER, mesh, CONFIG, ppm=ppm).score([prefix], [[step.tokens]])
    score = whole(PreferenceModel, ppm, [*prefix.tokens, *step.tokens])
    np.testing.assert_allclose(values[0], jnp.tanh(score), atol=1e-5)


def test_values_are_scores_over_the_scale_of_their_ppm(policy, ppm, mesh):
    """Far from 0 they would all be 1."""
    prefix, candidates = prefixes()[0], [(5, 6), (7,), (8, 9, 10)]
    large = {**ppm, "value": 30 * ppm["value"]}

    def values(scale):
        engine = Engine(MODEL, TOKENIZER, mesh, CONFIG, ppm={**large, "value_scale": jnp.asarray(scale)})
        return engine.score([prefix], [candidates])[0]

    scores = 100 * np.arctanh(values(100.0))
    assert np.abs(scores).max() > 2
    for scale in (1.0, 5.0):
        np.testing.assert_allclose(values(scale), np.tanh(scores / scale), atol=1e-4)


def test_a_batch_that_began_small_grows_and_draws_the_same(policy, mesh):
    """Those that come later are decoded with those that are under way, not after them."""
    config = dataclasses.replace(CONFIG, node_buckets=(1, 2, 8), pages=400)
    asked = [dataclasses.replace(prefix, key=(8, i)) for i in range(3) for prefix in prefixes()]
    asked = [dataclasses.replace(prefix, key=(9, i)) for i, prefix in enumerate(asked)]
    at_once = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=3).expand(asked, 4, stops=STOPS)
    engine = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=3)
    futures, places = [], set()
    for count in (1, 1, 13):
        futures += [engine.submit(prefix, 4, stops=STOPS) for prefix in asked[len(futures) : len(futures) + count]]
        engine.advance()
        places.add(engine._batch.shape.nodes)
    while not all(future.done() for future in futures):
        engine.advance()
    assert places == {1, 2, 8}
    rows = [future.result() for future in futures]
    assert [[s.tokens for s in row] for row in rows] == [[s.tokens for s in row] for row in at_once]
    np.testing.assert_allclose(
        [s.logprob for row in rows for s in row], [s.logprob for row in at_once for s in row], atol=1e-4
    )


def test_a_batch_whose_nodes_have_ended_shrinks_and_draws_the_same(policy, mesh):
    """The last trees of a search do not pay for the places of all."""
    config = dataclasses.replace(CONFIG, node_buckets=(1, 2, 8), chunk_steps=1, pages=400)
    nodes = [dataclasses.replace(prefix, key=(7, i)) for i, prefix in enumerate(prefixes())]
    alone = [Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=3).expand([n], 2, stops=STOPS) for n in nodes]
    engine, places = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=3), []
    futures = [engine.submit(node, 2, stops=STOPS) for node in nodes[:-2]]
    engine.advance()
    futures += [engine.submit(node, 2, stops=STOPS) for node in nodes[-2:]]  # they end later
    while not all(future.done() for future in futures):
        engine.advance()
        places.append(engine._batch.shape.nodes)
    assert places[0] == 8 and places[-1] == 2 and places == sorted(places, reverse=True)
    assert [[s.tokens for s in future.result()] for future in futures] == [[s.tokens for s in row] for (row,) in alone]


def test_what_is_drawn_does_not_depend_on_what_the_engine_did_before(policy, ppm, mesh):
    """To the last bit, once it has begun anew: as a shard of trees does."""

    def bits(engine):
        rows = engine.expand(prefixes(), 4, stops=STOPS)
        values = engine.score(prefixes(), [[step.tokens for step in row] for row in rows])
        return [(step.tokens, step.logprob) for row in rows for step in row], [own.tolist() for own in values]

    fresh = bits(Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, ppm=ppm, seed=3))
    engine = Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, ppm=ppm, seed=3)
    others = [dataclasses.replace(p, key=(1, i), tokens=p.tokens[:-1] + (12, 13, 14)) for i, p in enumerate(prefixes())]
    engine.expand(others, 4, stops=STOPS)
    engine.begin()
    assert bits(engine) == fresh


def test_what_is_cancelled_leaves_the_engine(policy, mesh):
    """It takes no place and no page, and what is asked beside it and after it is drawn as without it."""
    asked, config = prefixes(9), dataclasses.replace(LONG, chunk_steps=1)

    def drawn(rows):
        return [(step.tokens, step.logprob) for row in rows for step in row]

    engine = Engine(MODEL, TOKENIZER, mesh, config, policy=policy, seed=3)
    expected = drawn(engine.expand(asked, 4, stops=STOPS))
    engine.begin()
    futures = [engine.submit(prefix, 4, stops=STOPS) for prefix in asked]
    engine.advance()  # some are seated, others wait
    assert engine._waiting and not engine._batch.empty and not any(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="cannot begin anew while it decodes"):
        engine.begin()
    seated = [id(request.future) for _, request in engine._batch.seated()]
    others = [i for i, future in enumerate(futures) if i % 2 or not future.cancel()]
    left = [own for own in seated if own in {id(futures[i]) for i in others}]
    assert 0 < len(left) < len(seated)
    engine.advance()
    while not all(futures[i].done() for i in others):
        engine.advance()
    found = [futures[i].result() for i in others]
    assert [step.tokens for row in found for step in row] == [
        tokens for i in others for tokens, _ in expected[4 * i : 4 * i + 4]
    ]
    for turns in range(4):
        futures = [engine.submit(prefix, 4, stops=STOPS) for prefix in asked]
        for _ in range(turns):
            engine.advance()
        assert all(future.cancel() for future in futures if not future.done())
        engine.begin()
        assert engine.occupancy == 0 and not engine._waiting
        assert drawn(engine.expand(asked, 4, stops=STOPS)) == expected
        engine.begin()


def test_a_search_that_is_left_early_leaves_the_engine_clean(policy, mesh):
    problems = [Problem(id=f"{i}", question=f"What is {i} + 1?", answers=(f"{i + 1}",)) for i in range(5)]
    config = dataclasses.replace(scripted.CONFIG, max_prefix_tokens=LONG.max_prefix_tokens)

    def searched(engine, **more):
        world = dict(sampler=engine, verifier=scripted.Verifier(), grader=scripted.Grader())
        return search(problems, config=config, prompt=lambda question: question, **world, **more)

    expected = [tree.to_dict() for tree in searched(Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, seed=3))]
    engine = Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, seed=3)
    next(stream := searched(engine, scheduling=SchedulerConfig(in_flight=3)))
    stream.close()

    def fail(stats):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        list(searched(engine, on_progress=fail))
    engine.begin()
    assert engine.occupancy == 0
    assert [tree.to_dict() for tree in searched(engine)] == expected


def test_what_cannot_be_scored_or_decoded_is_refused_in_one_line(policy, ppm, mesh):
    engine = Engine(MODEL, TOKENIZER, mesh, LONG, policy=policy, ppm=ppm)
    with pytest.raises(ValueError, match="candidate 1 has no token to score"):
        engine.score(prefixes()[:1], [[(12, 13), ()]])
    with pytest.raises(ValueError, match="max_block_tokens \\(64\\): expected 1 to max_prefix_tokens \\(32\\)"):
        dataclasses.replace(CONFIG, max_block_tokens=64)
