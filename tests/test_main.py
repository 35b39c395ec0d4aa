"""The command line: bad input is one line and exit status 2, a disk that is full is 1."""

import errno
import json
import logging
import subprocess
import sys

import pytest

from rstar_jax import configuration, main
from rstar_jax.evolution.config import EvolutionConfig, WorldConfig
from rstar_jax.evolution.run_folder import RunFolder
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
        (["evolve", "--gin.ROLLOUTS=[1"], "--gin.ROLLOUTS=[1: "),
        (["evolve", "--gin.search.SearchConfig.candidates=eight"], "--gin.search.SearchConfig.candidates=eight: "),
        (["evolve", "--gin_file=own.gin"], "own.gin: "),
        (["report", "--run_dir=nothing"], "nothing"),
        (["report", "--gin.x=1"], "--gin.x=1: this mode has nothing to configure"),
        (
            ["grade", "--input=a", "--output=b", "--gin_file=x.gin"],
            "--gin_file=x.gin: this mode has nothing",
        ),
        (["verify", "--input=in.jsonl", "--output=b", "--gin.verifier.Limits.no_such=1"], "no_such"),
        (["verify", "--input=in.jsonl", "--output=b", "--gin.nonsense=1", "--gin_file=no.gin"], "--gin_file=no.gin"),
        (["evaluate", "--policy=m", "--problems=nothing.jsonl"], "nothing.jsonl: no such file"),
        (["evaluate", "--run_dir=nothing", "--problems=nothing.jsonl"], "nothing.jsonl: no such file"),
        (
            ["problems", "--problems=nothing", "--output=out.jsonl"],
            "--problems=nothing: no such file or folder; the sets",
        ),
        (["grade", "--input=nothing.jsonl", "--output=out.jsonl"], "nothing.jsonl"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.delenv("RSTAR_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.gin").write_text("include 'no_such_file.gin'\n")
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


def test_a_run_of_another_configuration(capsys, tmp_path):
    marker = {"settings": "seed = 1\n", "inputs": {}, "rows": [], "place": 0}
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "0_examples.json").write_text(json.dumps(marker))
    status, line = run(capsys, "evolve", f"--run_dir={tmp_path}")
    assert status == 2 and "0_examples was made with another configuration" in line and "--redo=0_examples" in line
    assert [path.name for path in tmp_path.iterdir()] == ["done"]  # nothing was written before it was looked at


def test_a_phase_that_there_is_not(capsys, tmp_path):
    status, line = run(capsys, "evolve", f"--run_dir={tmp_path}", "--redo=9_search")
    assert status == 2 and "--redo=9_search: expected one of 0_problems_heldout, 0_examples, 0_base, " in line


def test_a_full_disk_is_exit_status_1(capsys, monkeypatch, tmp_path):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("rstar_jax.evolution.commands.run_evolution", full)
    status, line = run(capsys, "evolve", f"--run_dir={tmp_path / 'run'}")
    assert status == 1 and "No space left on device" in line


def test_the_default_configuration_is_whole():
    configuration.parse([], ["SEED=7"])
    import gin

    config = gin.get_configurable(EvolutionConfig)()
    seeds = {config.seed, config.base.examples.seed, config.rounds[3].problems.seed, config.rounds[3].ppm.seed}
    assert seeds == {7} and len(config.rounds) == 4
    modes = [own.search.value_mode for settings in config.rounds for own in settings.passes]
    assert modes == ["terminal", "terminal", "ppm", "ppm"]
    assert "EvolutionConfig.rounds[3].passes[0].search.value_mode = 'ppm'" in configuration.operative(config)
    assert (config.evaluation.search.trees, config.evaluation.search.vote) == (1, VoteConfig())


def test_how_a_test_time_search_is_configured():
    bindings = ["Search.trees=4", "VoteConfig.rule='majority'", "test_time/SearchConfig.beam_width=3"]
    configuration.parse([], bindings)
    import gin

    config = gin.get_configurable(WorldConfig)().evaluation.search
    assert config == gin.get_configurable(EvolutionConfig)().evaluation.search
    assert (config.trees, config.vote.rule, config.config.beam_width) == (4, "majority", 3)


def test_a_gin_file_of_ones_own_includes_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    own = tmp_path / "elsewhere" / "own.gin"
    own.write_text("include 'local.gin'\nROLLOUTS = 3\n")
    configuration.parse([str(own)], ["SEED=7"])
    import gin

    config = gin.get_configurable(EvolutionConfig)()
    assert config.seed == 7 and config.rounds[0].passes[0].search.rollouts == 3


@pytest.mark.parametrize(
    "arguments", [["import", "--model=m", "--run_dir=r", "--dtype=int8"], ["import", "--model=m", "--kind=x"], []]
)
def test_what_is_no_choice_is_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_flags_that_change_nothing_are_named(caplog, monkeypatch):
    logger = logging.getLogger("rstar_jax")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    seen = []

    def mode(*, config: WorldConfig) -> None:
        seen.append(config.seed)

    for binding in ("EvolutionConfig.seed=7", "WorldConfig.seed=7", "SEED=7", "search.SearchConfig.rollouts=99", "x=1"):
        configuration.run(mode, [], [binding, "decoding.DecodingConfig.chunk_steps=5"], {})
    assert seen == [0, 7, 7, 0, 0]
    names = [record.getMessage().split()[0] for record in caplog.records]
    assert names == ["--gin.EvolutionConfig.seed=7", "--gin.search.SearchConfig.rollouts=99", "--gin.x=1"]


def test_help_and_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("rstar ")
    with pytest.raises(SystemExit):
        main.main(["--help"])
    told = capsys.readouterr().out
    assert all(mode in told for mode in main.MODES)
    assert set(main.SUMMARIES) == set(main.MODES)


def test_a_defect_of_ours_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("RSTAR_TRACEBACK", raising=False)
    monkeypatch.setattr("rstar_jax.evolution.commands.write_report", lambda run_dir: {}["missing"])
    with pytest.raises(KeyError):
        main.main(["report", f"--run_dir={tmp_path}"])
    assert "a defect of rstar_jax" in capsys.readouterr().err


def test_limits_are_those_of_the_flags(tmp_path):
    programs, outcomes = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    programs.write_text('{"candidates": ["print(\'x\' * 100)"]}\n')
    bound = "--gin.verifier.Limits.output_bytes=50"
    assert main.main(["verify", f"--input={programs}", f"--output={outcomes}", bound]) == 0
    assert '"output_limit"' in outcomes.read_text()


def test_who_stops_reading_ends_it_quietly(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"gold": "1", "answer": "1"}\n' * 20_000)
    command = f"{sys.executable} -m rstar_jax.main grade --input={pairs} --output=- | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ('{"equal": true}\n', 0) and "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "content"), [("done/a.json", ""), ("done/a.json", "[1]"), ("config.gin", "\xff")])
def test_what_is_cut_off_in_a_run_folder_is_named(tmp_path, name, content):
    (tmp_path / "done").mkdir()
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=name.split("/")[-1]):
        folder = RunFolder(tmp_path)
        folder.check_configuration("a = 1\n")
        folder.settings("a")
