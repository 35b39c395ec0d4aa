"""What a person sees of a phase where there is no terminal."""

import io

import pytest
from rich.console import Console

from rstar_jax.evolution import progress


@pytest.fixture
def log(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, width=40))
    return text


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_a_minute_and_one_at_the_end(log, clock):
    with progress.bar("round 1: search", 1000, "trees") as advance_to:
        for second in range(150):
            clock[0] = float(second)
            advance_to(second, "7 expansions")
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "round 1: search: 60/1000 trees",
        "round 1: search: 120/1000 trees",
        "round 1: search: 149/1000 trees",
    ]
    assert lines[1].endswith("1.0/s, 120.0 s  7 expansions")


def test_what_was_done_before_is_not_part_of_the_rate(log, clock):
    with progress.bar("round 1: search", 1000, "trees", 400) as advance_to:
        clock[0] = 10.0
        advance_to(450)
    assert "450/1000 trees, 5.0/s" in log.getvalue()


def test_a_line_is_said_once(log, clock):
    with progress.bar("round 1: search", 2, "trees") as advance_to:
        clock[0] = 61.0
        advance_to(2)
    assert log.getvalue().count("\n") == 1
    with progress.bar("round 2: search", 0, "trees"):
        pass
    assert log.getvalue().count("\n") == 1
