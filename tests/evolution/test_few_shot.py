"""`rstar evaluate --model`: a checkpoint is measured, or what is wrong is said in a line."""

import json

from rstar_jax import main
from tests import checkpoints

SMALL = [
    "--gin_file=runs/few_shot.gin",
    "--gin.decoding.DecodingConfig.prefix_buckets=(64,)",
    "--gin.decoding.DecodingConfig.extend_buckets=(64,)",
    "--gin.decoding.DecodingConfig.node_buckets=(4,)",
    "--gin.decoding.DecodingConfig.max_block_tokens=8",
    "--gin.evaluation.ModelEvaluation.verifier_workers=1",
]


def test_a_checkpoint_is_evaluated(tmp_path, capsys):
    checkpoint = checkpoints.write(tmp_path / "tiny")
    (tmp_path / "problems.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n' * 3)
    files = [f"--problems={tmp_path / 'problems.jsonl'}", f"--output={tmp_path / 'rows.jsonl'}"]
    assert main.main(["evaluate", f"--model={checkpoint}", *files, *SMALL]) == 0
    table = capsys.readouterr().out
    assert "programs that ran" in table and "0.000" in table
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["right"] is False and row["text"] for row in rows)


def test_problems_must_be_named(tmp_path, capsys):
    assert main.main(["evaluate", f"--model={tmp_path}", *SMALL]) == 2
    assert "--problems: expected a file, a folder, or" in capsys.readouterr().err
