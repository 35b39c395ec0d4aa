"""The named benchmarks on copies of them, where there are any: what is read, and which of them overlap."""

import pytest

from rstar_jax.problems import named
from rstar_jax.problems.contamination import decontaminate, deduplicate
from rstar_jax.problems.sources import FOLDER

SIZES = {
    "gsm8k_train": 7473,
    "gsm8k_test": 1319,
    "math_test": 5000,
    "math500": 500,
    "aime2024": 30,
    "aime2025": 30,
    "amc23": 40,
    "olympiad_bench": 675,
    "college_math": 2818,
    "gaokao2023en": 385,
    "omni_math": 4428,
}


@pytest.fixture(scope="module")
def benchmarks(shared_folder):
    folder = shared_folder / "benchmarks"
    if not folder.is_dir():
        pytest.skip("no benchmarks in the shared folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        return {name: named.find(name).read() for name in SIZES}


def test_copies_are_read_by_name(benchmarks):
    assert {name: len(problems) for name, problems in benchmarks.items()} == SIZES
    for name, problems in benchmarks.items():
        assert {own.source for own in problems} == {name} and len({own.id for own in problems}) == len(problems)
    without = {name: sum(not own.answers for own in problems) for name, problems in benchmarks.items()}
    assert {name: count for name, count in without.items() if count} == {"gaokao2023en": 2, "omni_math": 9}
    assert sum(len(own.answers) > 1 for own in benchmarks["math_test"]) == 4


def test_math500_is_found_in_math(benchmarks):
    kept, pairs = decontaminate(benchmarks["math500"], benchmarks["math_test"])
    assert kept == [] and {pair.id for pair in pairs} == {own.id for own in benchmarks["math500"]}


def test_gsm8k_has_four_questions_of_its_test_split_with_other_numbers(benchmarks):
    kept, pairs = decontaminate(benchmarks["gsm8k_train"], benchmarks["gsm8k_test"])
    assert len(pairs) == len(benchmarks["gsm8k_train"]) - len(kept) == 4
    shared = {pair.words for pair in pairs}
    assert "miles in 3 hours at the same rate how many additional hours would" in shared


def test_questions_that_a_benchmark_asks_twice(benchmarks):
    twice = {name: len(own) - len(deduplicate(own)) for name, own in benchmarks.items()}
    assert {name: count for name, count in twice.items() if count} == {
        "college_math": 39,
        "math_test": 1,
        "omni_math": 30,
    }
