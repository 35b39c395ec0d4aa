"""Train steps compiled for TPUs that are not here: they fit, and nothing larger than a layer goes from chip to chip."""

import importlib.util

import pytest

from tests.benchmarks import train_programs

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed: the extra tpu")
QUICK = ("1.5b-sft-v5e-8",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in train_programs.CASES]
)
def test_a_step_fits_and_moves_no_more_than_a_layer_at_a_time(name):
    found = train_programs.figures(train_programs.CASES[name])
    assert found["hbm_share"] < 1.0
    assert found.get("largest_exchange_bytes", 0) <= found["layer_bytes"]
