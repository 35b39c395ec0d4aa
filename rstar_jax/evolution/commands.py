"""The modes of the command line that need models, each on the models of a run and on files of the run or of a user."""

import dataclasses
import hashlib
import itertools
import json
from typing import Any

from etils import epath
from rich.table import Table

from rstar_jax import configuration, evaluation
from rstar_jax.decoding import GREEDY
from rstar_jax.evolution import data as training_data
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import EvolutionConfig
from rstar_jax.evolution.evolve import evolve as run_evolution
from rstar_jax.evolution.run_folder import RunFolder, publish
from rstar_jax.evolution.world import World, open_world, policy_loss, preference_loss
from rstar_jax.models import Decoder, PreferenceModel, parameters
from rstar_jax.problems import Problem, datasets, jsonl
from rstar_jax.report import report as write_report
from rstar_jax.search import Tree, missing_shards, read_shard, write_shard
from rstar_jax.training import checkpoints, trainer


def evolve(*, config: EvolutionConfig, run_dir: str) -> None:
    """All rounds; prints the path of the report as its last line."""
    RunFolder(run_dir).check_configuration(configuration.operative(config))
    print(run_evolution(config, run_dir))


def report(*, run_dir: str) -> None:
    """The pages of a run folder; prints their path."""
    print(write_report(run_dir))


def search(*, config: EvolutionConfig, run_dir: str, problems: str | None, output: str, round: int | None) -> None:
    """Test-time search: writes the trees and `answers.jsonl` ({"id", "question", "answer"} a line) into `output`.

    A search that was killed goes on with the shards of trees that are missing in `output`; a folder that another
    configuration, round or problem file has begun is refused.
    """
    # From here on nothing in this process knows an answer.
    asked = [dataclasses.replace(problem, answer="") for problem in _problems(run_dir, problems)]
    folder, number = epath.Path(output), _round(run_dir, round, "ppm")
    told = hashlib.sha256("\n".join(problem.question for problem in asked).encode()).hexdigest()
    kind = f"# searched with round {number} of {run_dir}: {len(asked)} problems, {told[:16]}\n"
    RunFolder(folder).check_configuration(kind + configuration.operative(config), flag="--output")
    settings, total = config.evaluation, config.shards
    with open_world(config, run_dir) as world:
        policy, ppm = _policy(world, run_dir, number), _ppm(world, run_dir, number)
        engine = world.engine(policy, ppm, sampling=settings.sampling)
        for shard in missing_shards(folder / "trees", total):
            name = f"search with round {number}, {shard + 1} of {total}"
            engine.begin()
            found = world.test_time_search(asked[shard::total], engine, config, name)
            write_shard(folder / "trees", shard, total, itertools.chain.from_iterable(found))
        trees: list[list[Tree]] = [[]] * len(asked)
        for shard in range(total):
            own, each = read_shard(folder / "trees", shard, total), settings.trajectories
            trees[shard::total] = [own[i : i + each] for i in range(0, len(own), each)]
        answers = evaluation.search_answers(trees, world.grader, settings.vote)
    lines = [
        json.dumps({"id": problem.id, "question": problem.question, "answer": answer})
        for problem, answer in zip(asked, answers, strict=True)
    ]
    publish(folder / "answers.jsonl", "".join(line + "\n" for line in lines))
    print(folder / "answers.jsonl")


def evaluate(
    *, config: EvolutionConfig, run_dir: str, problems: str | None, output: str | None, round: int | None
) -> None:
    """Greedy, votes, best of N, search and pass@k on problems with answers: a table, and JSON lines into `output`.

    With several trajectories also the accuracy of each selection rule by how many of them vote.
    """
    asked = _problems(run_dir, problems)
    settings = config.evaluation
    with open_world(config, run_dir) as world:
        number = _round(run_dir, round, "policy")
        policy = _policy(world, run_dir, number)
        common = dict(verifier=world.verifier, grader=world.grader, max_prefix_tokens=config.decoding.max_prefix_tokens)
        greedy = world.engine(policy, sampling=GREEDY)
        values = {"greedy_accuracy": evaluation.greedy_accuracy(asked, sampler=greedy, **common)}
        ppm = _ppm(world, run_dir, number) if _path(run_dir, number, "ppm").exists() else None
        engine = world.engine(policy, ppm, sampling=settings.sampling)
        scorer = engine if ppm is not None else None
        values |= evaluation.sampled_accuracy(
            asked, settings.samples, sampler=engine, scorer=scorer, seed=config.seed, **common
        )
        curve = {}
        if ppm is not None:
            trees = world.test_time_search(asked, engine, config, f"search with round {number}")
            answers = evaluation.search_answers(trees, world.grader, settings.vote)
            golds = [problem.answer for problem in asked]
            values["search_accuracy"] = evaluation.grade_answers(golds, answers, world.grader)
            if settings.trajectories > 1:
                curve = evaluation.scaling_curve(asked, trees, world.grader, settings.vote)
    where = {"round": number, "split": problems or "heldout"}
    rows = []
    for name, own in values.items():
        for level, mean in evaluation.by_level(asked, own, settings.frontier_levels).items():
            row: dict[str, Any] = {**where, "name": name, "value": mean}
            rows.append(row if level is None else {**row, "level": level})
    scaling = evaluation.scaling_rows(asked, curve, settings.frontier_levels)
    _print_table(rows, len(asked))
    if scaling:
        _print_scaling(scaling)
    rows += [{**where, **row} for row in scaling]
    if output is not None:
        publish(epath.Path(output), "".join(json.dumps(row) + "\n" for row in rows))


def train_policy(*, config: EvolutionConfig, run_dir: str, data: str | None, output: str, round: int | None) -> None:
    """Trains the bootstrap's policy on {"question", "response"} rows; writes the model to `output`."""
    settings = config.rounds[-1].policy
    with open_world(config, run_dir) as world:
        rows = _rows(run_dir, data, round, "policy_data", ("question", "response"))
        examples = training_data.policy_examples(rows, world.tokenizer, settings)
        batch_at = training_data.policy_batches([examples], [1.0], settings)
        start = _policy(world, run_dir, 0)
        _train(world, policy_loss(world.model), start, batch_at, settings, output, "policy")


def train_ppm(*, config: EvolutionConfig, run_dir: str, data: str | None, output: str, round: int | None) -> None:
    """Trains a PPM from a round's policy on {"question", "prefix", "chosen", "rejected"} rows, into `output`."""
    settings = config.rounds[-1].ppm
    with open_world(config, run_dir) as world:
        rows = _rows(run_dir, data, round, "preference_data", ("question", "prefix", "chosen", "rejected"))
        rows = [{"weight": 1.0, **row} for row in rows]
        examples = training_data.preference_examples(rows, world.tokenizer, settings)
        policy = _policy(world, run_dir, _round(run_dir, round, "policy"))
        start = parameters.preference_from_policy(world.model, policy, world.mesh, config.value_scale)
        batch_at = training_data.preference_batches(examples, settings)
        _train(world, preference_loss(world.model), start, batch_at, settings, output, "ppm")


def _path(run_dir: str, number: int, model: str) -> epath.Path:
    return epath.Path(run_dir) / f"round_{number}" / model


def _round(run_dir: str, asked: int | None, model: str) -> int:
    """The round that was asked for, or the last that has such a model."""
    if asked is not None:
        return asked
    there = [int(path.parent.name.removeprefix("round_")) for path in epath.Path(run_dir).glob(f"round_*/{model}")]
    if not there:
        raise FileNotFoundError(f"--run_dir={run_dir}: no round there has a {model}; run `rstar evolve` first")
    return max(there)


def _policy(world: World, run_dir: str, number: int) -> parameters.Parameters:
    return checkpoints.load(_path(run_dir, number, "policy"), Decoder, world.model, world.mesh)


def _ppm(world: World, run_dir: str, number: int) -> parameters.Parameters:
    return checkpoints.load(_path(run_dir, number, "ppm"), PreferenceModel, world.model, world.mesh)


def _problems(run_dir: str, file: str | None) -> list[Problem]:
    if file is not None:
        return jsonl.read_problems(file)
    return datasets.read_problems(epath.Path(run_dir) / "problems", "heldout")


def _rows(run_dir: str, file: str | None, number: int | None, kind: str, fields: tuple[str, ...]) -> list[dict]:
    """Training rows from a JSONL file, a data set folder, or a round of the run."""
    if file is None:
        return training_data.read_rows(_path(run_dir, _round(run_dir, number, kind), kind))
    if epath.Path(file).is_dir():  # a data set folder
        return training_data.read_rows(file)
    return jsonl.read_rows(file, fields)


def _train(world, loss, start, batch_at, settings, output: str, name: str) -> None:
    with progress.bar(f"train {name}", settings.steps, "steps") as advance_to:
        trained, _ = trainer.train(
            loss,
            start,
            batch_at,
            settings,
            world.mesh,
            on_step=lambda step, values: advance_to(step + 1, progress.numbers(values)),
        )
    checkpoints.save(output, trained)
    print(output)


def _print_scaling(rows: list[dict[str, Any]]) -> None:
    sizes = sorted({row["trajectories"] for row in rows})
    table = Table("trajectories", *map(str, sizes), title="accuracy by selection rule")
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {row["trajectories"]: row["value"] for row in rows if row["name"] == name}
        table.add_row(name.removeprefix(evaluation.SCALING), *(f"{own[size]:.3f}" for size in sizes))
    progress.output.print(table)


def _print_table(rows: list[dict[str, Any]], count: int) -> None:
    levels = sorted({row["level"] for row in rows if "level" in row})
    table = Table("", "all", *(f"level {level}" for level in levels), title=f"{count} problems")
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {row.get("level"): row["value"] for row in rows if row["name"] == name}
        table.add_row(name, *(f"{own[level]:.3f}" if level in own else "" for level in (None, *levels)))
    progress.output.print(table)
