"""A checkpoint that knows no step markers is measured few-shot, or what is wrong is said in a line."""

import json

import pytest

from rstar_jax import main
from tests import checkpoints

SMALL = [
    "--gin_file=runs/few_shot.gin",
    "--gin.decoding.DecodingConfig.prefix_buckets=(64,)",
    "--gin.decoding.DecodingConfig.extend_buckets=(64,)",
    "--gin.decoding.DecodingConfig.node_buckets=(4,)",
    "--gin.decoding.DecodingConfig.max_block_tokens=8",
    "--gin.evolution.WorldConfig.verifier_workers=1",
]


@pytest.fixture
def problems(tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1 + 1?", "answer": "2"}\n' * 3)
    return file


def test_a_checkpoint_is_evaluated(tmp_path, problems, capsys):
    checkpoint, folder = checkpoints.write(tmp_path / "tiny"), tmp_path / "measured"
    command = ["evaluate", f"--policy={checkpoint}", f"--problems={problems}", f"--output={folder}", "--limit=2"]
    assert main.main([*command, *SMALL]) == 0
    table = capsys.readouterr().out
    assert "2 problems" in table and "0.000 ± 0.000" in table
    file = folder / "rows" / "greedy-00000-of-00001.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        chosen = row["chosen"]["greedy_accuracy"]
        assert chosen["right"] is False and chosen["text"] and row["tokens"] > 0
    (number,) = json.loads((folder / "table.json").read_text())["rows"]
    assert (number["name"], number["n"], number["undecided"]) == ("greedy_accuracy", 2, 0)
    # How fast it is had makes no other measurement.
    faster = ["--gin.decoding.DecodingConfig.node_buckets=(2,)", "--gin.evolution.WorldConfig.verifier_workers=2"]
    assert main.main([*command, *SMALL, *faster]) == 0
    capsys.readouterr()
    for other in ("value_scale=5", "seed=1"):
        assert main.main([*command, *SMALL, f"--gin.evolution.WorldConfig.{other}"]) == 2
        assert "made with another configuration" in capsys.readouterr().err
    assert main.main([*command[:-1], "--limit=3", *SMALL]) == 2
    assert "made with another configuration" in capsys.readouterr().err


def test_a_limit_is_a_number(tmp_path, problems, capsys):
    assert main.main(["evaluate", f"--policy={tmp_path}", f"--problems={problems}", "--limit=two", *SMALL]) == 2
    assert "--limit=two: expected a number of problems" in capsys.readouterr().err
