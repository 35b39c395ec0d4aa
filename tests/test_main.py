"""The command line: bad input is one line and exit status 2, a disk that is full is 1."""

import errno

import pytest

from rstar_jax import configuration, main
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.search import VoteConfig


def run(capsys, *arguments):
    status = main.main(list(arguments))
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return status, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evolve", "--gin_file=nothing.gin"], "--gin_file=nothing.gin: no such file"),
        (["evolve", "--gin.no_such.Thing.x=1"], "no_such"),
        (["evolve", "--gin.training.TrainingConfig.no_such_parameter=1"], "no_such_parameter"),
        (["evolve", "--gin.search.SearchConfig.candidates=0"], "candidates must be at least 1"),
        (["evolve", "--gin.ROLLOUTS"], "expected --gin.NAME=VALUE"),
        (["report", "--run_dir=nothing"], "nothing"),
        (["evaluate", "--run_dir=nothing", "--problems=nothing.jsonl"], "nothing.jsonl: no such file"),
        (["verify", "--input=nothing.jsonl", "--output=out.jsonl"], "nothing.jsonl"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.delenv("RSTAR_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "evolve":
        arguments = [*arguments, "--run_dir=run"]
    status, line = run(capsys, *arguments)
    assert status == 2 and message in line
    assert not (tmp_path / "out.jsonl").exists()


def test_a_malformed_problem_file_is_named_with_its_line(capsys, tmp_path):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1 + 1", "answer": "2"}\nnot json\n')
    status, line = run(capsys, "evaluate", f"--run_dir={tmp_path}", f"--problems={file}")
    assert status == 2 and "problems.jsonl, line 2: not JSON" in line


def test_a_run_folder_of_another_configuration(capsys, tmp_path):
    (tmp_path / "config.gin").write_text("EvolutionConfig.seed = 0\n")
    status, line = run(capsys, "evolve", f"--run_dir={tmp_path}", "--gin.evolution.EvolutionConfig.seed=1")
    assert status == 2 and "made with another configuration" in line


def test_a_full_disk_is_exit_status_1(capsys, monkeypatch, tmp_path):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("rstar_jax.evolution.commands.run_evolution", full)
    status, line = run(capsys, "evolve", f"--run_dir={tmp_path / 'run'}")
    assert status == 1 and "No space left on device" in line


def test_the_default_configuration_is_whole():
    configuration.parse([], ["evolution.EvolutionConfig.seed=7"])
    import gin

    config = gin.get_configurable(EvolutionConfig)()
    assert config.seed == 7 and len(config.rounds) == 4
    assert [settings.search.value_mode for settings in config.rounds] == ["terminal", "terminal", "ppm", "ppm"]
    assert "EvolutionConfig.rounds[3].search.value_mode = 'ppm'" in configuration.operative(config)
    assert (config.evaluation.trajectories, config.evaluation.vote) == (1, VoteConfig())


def test_how_a_test_time_search_is_configured():
    bindings = ["EvaluationConfig.trajectories=4", "VoteConfig.rule='majority'", "test_time/SearchConfig.beam_width=3"]
    configuration.parse([], bindings)
    import gin

    config = gin.get_configurable(EvolutionConfig)().evaluation
    assert (config.trajectories, config.vote.rule, config.search.beam_width) == (4, "majority", 3)
