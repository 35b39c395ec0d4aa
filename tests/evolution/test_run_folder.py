"""Progress of a run: done-markers, metric rows of a phase that was cut off, another configuration."""

import json

import pytest

from rstar_jax.evolution.run_folder import RunFolder


def test_rows_of_a_cut_off_phase_are_dropped(tmp_path):
    def add(folder, name):
        folder.metrics.add(round=0, name=name, value=1.0, split="train")

    folder = RunFolder(tmp_path)
    folder.phase("first", lambda: add(folder, "a"))

    def cut_off():
        add(folder, "b")
        folder.metrics.flush()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.phase("second", cut_off)
    again = RunFolder(tmp_path)
    assert not again.phase("first", lambda: add(again, "never"))
    assert again.phase("second", lambda: add(again, "c"))
    names = [json.loads(line)["name"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert names == ["a", "c"]


def test_another_configuration_is_refused(tmp_path):
    RunFolder(tmp_path).check_configuration("a = 1\nb = 2\n")
    RunFolder(tmp_path).check_configuration("a = 1\nb = 2\n")
    with pytest.raises(ValueError, match="made with another configuration; the first difference is 'b = 3'"):
        RunFolder(tmp_path).check_configuration("a = 1\nb = 3\n")
