"""The problems of a run: in shards, in order, as they were, for us and for TFDS."""

import random

import pytest
import tensorflow_datasets as tfds

from rstar_jax.problems import Problem, named
from rstar_jax.problems.stored import StoredProblems, write_problems


def problems(count: int, seed: int = 0, letters: str = "ab \n\u2028é\ud800") -> list[Problem]:
    rng = random.Random(seed)

    def text() -> str:
        return "".join(rng.choice(letters) for _ in range(rng.randrange(12)))

    return [
        Problem(
            id=f"set/{i}",
            question=text() + "?",
            answers=tuple(text() for _ in range(rng.randrange(3))),
            source=rng.choice([None, "a", "b/c"]),
            level=rng.choice([None, "1", "olympiad"]),
            solution=text(),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(("count", "shards"), [(0, 2), (1, 1), (7, 3), (20, 4), (3, 5)])
def test_what_was_written_is_read(tmp_path, count, shards):
    given = problems(count, seed=count)
    write_problems(tmp_path, given, shards)
    stored = StoredProblems(tmp_path)
    assert stored.read() == given and len(stored) == count
    assert [stored.shard(shard) for shard in range(shards)] == [given[shard::shards] for shard in range(shards)]
    assert stored.read(blind=True) == [problem.blind() for problem in given]


def test_tfds_and_problems_read_it(tmp_path):
    given = [own for own in problems(12, letters="abé") if own.answers]
    assert len(given) > 4
    write_problems(tmp_path, given, 2)
    rows = tfds.builder_from_directory(str(tmp_path)).as_data_source("train")
    assert sorted(row["id"].decode() for row in rows) == sorted(own.id for own in given)
    found = {own.id: own for own in named.find(str(tmp_path)).read()}
    assert found.keys() == {own.id for own in given}
    for own in given:
        kept = tuple(answer for answer in own.answers if answer.strip())
        assert (found[own.id].answers, found[own.id].level) == (kept, own.level)


def test_no_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: no finished data set"):
        StoredProblems(tmp_path)
