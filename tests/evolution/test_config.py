"""What a run may be made of, and the gin files of runs."""

import dataclasses
import pathlib

import pytest

import gin
from rstar_jax import configuration, main
from rstar_jax.evolution.config import Benchmark, Checkpoint, EvolutionConfig, Pass
from rstar_jax.training import TrainingConfig
from tests.evolution.test_evolve import SEARCH, TRAINING, config

AUGMENTED = Pass(search=dataclasses.replace(SEARCH, value_mode="ppm"))


def test_the_first_round_has_no_ppm():
    first, second = config().rounds
    with pytest.raises(ValueError, match="the first round has no PPM yet"):
        dataclasses.replace(config(), rounds=(second, first))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: Pass(search=SEARCH, only=("tricky",)), "Pass.only: expected some of"),
        (lambda: Pass(search=SEARCH, trees=0), "Pass.trees must be at least 1"),
        (lambda: dataclasses.replace(config().rounds[0], passes=()), "expected at least one Pass"),
        (lambda: dataclasses.replace(config().rounds[0], learn_from="none"), "learn_from must be 'round' or 'all'"),
        (lambda: dataclasses.replace(config().rounds[0], replay=1.5), "replay must lie in"),
        (
            lambda: dataclasses.replace(config().rounds[1], annotator=Checkpoint(source="x", few_shot="y")),
            "Round.annotator: expected None where a pass is led by a PPM",
        ),
        (lambda: dataclasses.replace(config(), rounds=()), "expected at least one Round"),
        (lambda: dataclasses.replace(config(), base=Checkpoint(source="x")), "need the examples of a Scratch base"),
        (lambda: dataclasses.replace(config(), benchmarks=config().benchmarks * 2), "expected names of their own"),
        (lambda: Benchmark(name="a/b", problems=config().benchmarks[0].problems), "Benchmark.name: expected letters"),
        (lambda: dataclasses.replace(TRAINING, epochs=2), "expected either steps or epochs"),
        (lambda: dataclasses.replace(TRAINING, steps=0), "expected steps or epochs above 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(change, message):
    with pytest.raises(ValueError, match=message):
        change()


def test_a_round_without_problems_is_named():
    rounds = tuple(dataclasses.replace(own, problems=None) for own in config().rounds)
    with pytest.raises(ValueError, match="round 1 has no problems, and the run has none"):
        dataclasses.replace(config(), rounds=rounds)


def test_epochs_are_as_many_steps_as_the_examples_need():
    training = TrainingConfig(epochs=2, batch=4, learning_rate=1.0)
    assert training.on(10).steps == 5 and training.on(9).steps == 5 and training.on(1).steps == 1
    assert training.on(10, share=0.5).steps == 10 and TRAINING.on(1000) == TRAINING


def read(*files, bindings=()):
    configuration.parse(list(files), list(bindings))
    return gin.get_configurable(EvolutionConfig)()


MESHES = pathlib.Path(configuration.__file__).parent.parent / "gin" / "meshes"


@pytest.mark.parametrize("name", sorted(path.name.removesuffix("_train.gin") for path in MESHES.glob("*_train.gin")))
def test_a_run_trains_on_all_chips_and_decodes_whole_models(name):
    files = ["runs/paper_7b.gin", f"meshes/{name}_train.gin", f"meshes/{name}_decode.gin"]
    paper = read(*files, bindings=["ANNOTATOR='some/model'"])
    chips = int(name.rpartition("_")[2])
    assert (paper.training_mesh.data, paper.training_mesh.fsdp, paper.training_mesh.tensor) == (1, chips, 1)
    assert paper.mesh.fsdp == 1 and 4 % paper.mesh.tensor == 0  # as many key-value heads as the model has
    for own in paper.rounds:
        for program in (own.policy.program, own.ppm.program):
            assert (program.remat, program.microbatch) == ("layer", chips)
        assert (own.policy.program.attention, own.ppm.program.attention) == ("splash", "xla")


@pytest.mark.parametrize("run", ["runs/paper_7b.gin", "runs/paper_1.5b.gin"])
def test_the_paper_s_rounds(run, capsys):
    assert main.main(["evolve", f"--gin_file={run}", "--dry_run"]) == 2
    assert "EvolutionConfig.rounds[0].annotator.source must be set" in capsys.readouterr().err
    paper = read(run, bindings=["ANNOTATOR='some/model'"])
    shape = [
        [(own.search.rollouts, own.search.candidates, own.trees, own.only) for own in settings.passes]
        for settings in paper.rounds
    ]
    every, hard = ("easy", "medium", "hard"), ("hard",)
    assert shape == [
        [(8, 5, 1, every)],
        [(16, 8, 1, every), (16, 8, 1, hard)],
        [(16, 8, 1, every), (16, 8, 1, hard)],
        [(16, 16, 2, every), (64, 16, 1, hard), (128, 16, 1, hard)],
    ]
    modes = [{own.search.value_mode for own in settings.passes} for settings in paper.rounds]
    assert modes == [{"terminal"}, {"terminal"}, {"ppm"}, {"ppm"}]
    annotators = [settings.annotator and settings.annotator.source for settings in paper.rounds]
    assert annotators == ["some/model", None, None, None]
    assert {(own.policy.epochs, own.policy.batch, own.ppm.epochs, own.ppm.batch) for own in paper.rounds} == {
        (2, 128, 1, 512)
    }
    assert len(paper.benchmarks) == 9 and {own.learn_from for own in paper.rounds} == {"round"}
    trees = {own.name: paper.measured(own).search.trees for own in paper.benchmarks}
    assert trees["aime2024"] == trees["amc23"] == 16 and trees["math500"] == 8


def test_the_small_run_of_real_weights():
    small = read("runs/gsm8k_small.gin", bindings=["MODEL='folder'", "ANNOTATOR='larger'"])
    assert (small.base.source, small.rounds[0].annotator.source) == ("folder", "larger")
    assert [len(own.passes) for own in small.rounds] == [2, 2] and small.problems.limit == 24


@pytest.mark.parametrize("file", ["local.gin", "runs/paper.gin", "runs/gsm8k_small.gin"])
def test_one_seed_is_that_of_everything(file):
    read_ = read(file, bindings=["SEED=41", "MODEL='folder'", "ANNOTATOR='folder'"])
    lines = configuration.operative(read_).splitlines()
    seeds = {line.partition(" = ")[0]: line.partition(" = ")[2] for line in lines if ".seed = " in line}
    trainings = [name for name in seeds if name.endswith(("policy.seed", "ppm.seed"))]
    assert len(trainings) == 2 * len(read_.rounds) and "EvolutionConfig.seed" in seeds
    assert {name for name in trainings if seeds[name] != "41"} == set() and seeds["EvolutionConfig.seed"] == "41"
