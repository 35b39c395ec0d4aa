"""A search of several shards keeps its places full over their borders, as `EvolutionConfig.overlap` promises."""

import dataclasses
import types

import pytest

from rstar_jax.evolution import annotate
from rstar_jax.evolution.run import Run
from rstar_jax.evolution.run_folder import RunFolder
from rstar_jax.problems.stored import write_problems
from rstar_jax.search import SchedulerConfig, missing_shards
from tests.evolution.test_evolve import config
from tests.search import scripted

SHARDS, TREES, PLACES = 4, 16, 8


@pytest.mark.parametrize("overlap", [True, False])
def test_places_stay_full_from_shard_to_shard(tmp_path, monkeypatch, overlap):
    """As long as a problem is left; without overlap they run empty at every border, so that this is seen at all."""
    scheduling = SchedulerConfig(in_flight=PLACES, patience=None, seconds=600.0)
    settings = dataclasses.replace(config(), shards=SHARDS, overlap=overlap, scheduling=scheduling)
    run = Run(config=settings, folder=RunFolder(tmp_path))
    write_problems(tmp_path / "problems/round_1", scripted.problems(SHARDS * TREES), SHARDS)
    events, taken, limits, whole = [], [], [], annotate.search

    def search(problems, *, on_progress, config, **world):
        limits.append(world["scheduling"].seconds)

        def asked():
            for problem in problems:
                events.append(("begins", int(problem.id.removeprefix("sum_")) % SHARDS))
                yield problem

        def progress(stats):
            begun = sum(what == "begins" for what, _ in events)
            taken.append((begun, begun - stats.finished_trees))

        for tree in whole(asked(), on_progress=progress, config=scripted.CONFIG, **world):
            events.append(("ends", int(tree.problem.id.removeprefix("sum_")) % SHARDS))
            yield tree

    monkeypatch.setattr(annotate, "search", search)
    monkeypatch.setattr(annotate.SearchedPass, "_engine", lambda self: scripted.Sampler())
    monkeypatch.setattr(annotate._Speed, "write", lambda self: None)
    monkeypatch.setattr(annotate._Speed, "seconds", property(lambda self: 100.0 * len(limits)))
    verifier = types.SimpleNamespace(workers=1, submit=scripted.Verifier().submit)
    run.world = types.SimpleNamespace(verifier=verifier, grader=scripted.Grader())
    searched = annotate.SearchedPass(run, 1, 1)
    searched.shards().work(iter(range(SHARDS)))
    assert missing_shards(tmp_path / "round_1" / "trees_1", SHARDS) == []
    full = [places == PLACES for begun, places in taken if begun < SHARDS * TREES]
    assert len(full) > 20 and all(full) == overlap
    last = [len(events) - events[::-1].index(("ends", shard)) for shard in range(SHARDS)]
    early = [events.index(("begins", shard + 1)) < last[shard] for shard in range(SHARDS - 1)]
    assert early == [overlap] * (SHARDS - 1)
    assert limits == ([600.0] if overlap else [600.0, 500.0, 400.0, 300.0])  # the limit is that of the whole pass
