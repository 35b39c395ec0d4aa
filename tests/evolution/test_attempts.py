"""Seconds of work on a phase: of processes that were killed as well, and of several at a time once."""

import errno
import itertools
import json
import os
import random
import subprocess
import sys
import time
import types

import pytest

from rstar_jax import files
from rstar_jax.evolution import attempts
from rstar_jax.evolution.attempts import worked_seconds
from rstar_jax.evolution.run_folder import Phase, RunFolder
from tests.evolution.scripted import numbers


def test_seconds_are_those_in_which_anybody_was_at_work(tmp_path):
    draw = random.Random(0)
    for case in range(20):
        spans = [sorted(draw.sample(range(100), 2)) for _ in range(draw.randint(0, 6))]
        folder = tmp_path / str(case)
        folder.mkdir()
        for number, (began, until) in enumerate(spans):
            (folder / f"{number}.json").write_text(json.dumps({"began": 1e9 + began, "until": 1e9 + until}))
        covered = set(itertools.chain.from_iterable(range(*span) for span in spans))
        assert worked_seconds(folder) == pytest.approx(len(covered))


def test_the_time_of_a_process_that_was_killed_counts_and_the_time_between_does_not(tmp_path):
    script = (
        "import sys, time; from rstar_jax.evolution.attempts import Attempt\n"
        "with Attempt(sys.argv[1], every=0.1): print('begun', flush=True); time.sleep(600)"
    )
    folder = tmp_path / "attempts" / "0_base"
    killed = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert killed.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 60
        while worked_seconds(folder) < 1.0 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        killed.kill()
        killed.wait()
    before = worked_seconds(folder)
    assert before >= 1.0
    time.sleep(0.5)
    start = time.monotonic()
    run = RunFolder(tmp_path)
    work = Phase(name="0_base", round=0, settings={}, inputs=(), outputs=(), work=lambda: time.sleep(0.5))
    run.run([work])
    (row,) = numbers(tmp_path)
    assert row["name"] == "phase_seconds"
    assert before + 0.5 <= row["value"] <= before + time.monotonic() - start
    assert run.status() == [("0_base", "done", row["value"])]
    run.drop([work])
    assert worked_seconds(folder) == 0.0


def test_a_disk_that_takes_no_numbers_ends_no_work(tmp_path, monkeypatch):
    asked = []

    def full(path, content):
        asked.append(path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(attempts, "files", types.SimpleNamespace(publish=full, markers=files.markers))
    run, made = RunFolder(tmp_path), []
    work = Phase(name="0_base", round=0, settings={}, inputs=(), outputs=(), work=lambda: made.append(1))
    run.run([work])
    assert len(asked) == 2 and made == [1]
    assert run.status() == [("0_base", "done", 0.0)]
