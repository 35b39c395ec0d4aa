"""Measures the models of a run on its benchmarks."""

import dataclasses
from collections.abc import Mapping, Sequence

from rstar_jax import evaluation
from rstar_jax.evaluation import EqualTokens, EvaluationConfig, Greedy, Measurement, Search
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import Benchmark
from rstar_jax.evolution.run import Run, benchmark_set
from rstar_jax.evolution.select import preference_rows
from rstar_jax.evolution.train import CONTROL
from rstar_jax.problems import Problem
from rstar_jax.search import search_all


def measure(run: Run, number: int, benchmark: Benchmark, until: Measurement, kind: str) -> None:
    """Measures a round's policy; the phases before have left the rows of the measurements that come before.

    kind: "policy" or "control", the name of its folder; the control's numbers are called by it.
    """
    settings, folder = run.config.measured(benchmark), run.folder.round(number)
    greedy, others = settings.of_every_round, settings.of_the_last_round
    others = others[: others.index(until) + 1] if until in others else []
    prefix = f"{CONTROL}_" if kind == CONTROL else ""
    policy = run.policy(number, kind, settings.dtype)
    ppm = run.ppm(number) if others else None
    own = dataclasses.replace(run.config, evaluation=settings)
    bench = run.world.bench(policy, ppm, own, folder / f"{benchmark.name}_trees")
    rows = folder / f"{kind}_evaluation" / benchmark.name
    problems = run.problems(benchmark_set(benchmark.name)).read()
    measured = evaluation.measure(problems, greedy, bench, rows, settings.piece)
    headline = evaluation.headline_problems(problems, settings.headline_levels)
    measured |= evaluation.measure(headline, others, bench, rows, settings.piece)
    numbers = [
        {**row, "name": prefix + row["name"], "benchmark": benchmark.name}
        for row in _numbers(until, measured, settings)
    ]
    run.note(number, numbers)


def measure_pairs(run: Run, number: int) -> None:
    """Does the last PPM tell good steps from bad ones on problems that nothing was trained on?

    The trees are annotated by the ground truth alone, so that the PPM has no say in which pairs there are.
    """
    config, benchmark, settings = run.config, run.config.benchmarks[0], run.round(number)
    measured = config.measured(benchmark)
    problems = evaluation.headline_problems(
        run.problems(benchmark_set(benchmark.name)).read(), measured.headline_levels
    )
    problems = problems[:: max(len(problems) // measured.pair_problems, 1)]
    ppm = run.ppm(number)
    engine = run.world.engine(run.policy(number), ppm, seed=config.seed + 1000)
    trees = search_all(
        problems,
        sampler=engine,
        verifier=run.world.verifier,
        grader=run.world.grader,
        config=dataclasses.replace(settings.passes[0].search, value_mode="terminal", beam_width=None),
        seed=config.seed,
        scheduling=config.scheduling,
    )
    accuracy = evaluation.pair_accuracy(
        [_pairs(problem, tree, settings) for problem, tree in zip(problems, trees, strict=True)],
        engine,
        ppm.tokenizer,
    )
    for kind, (value, count) in accuracy.items():
        more = {"benchmark": benchmark.name} | ({} if kind is None else {"kind": kind})
        run.folder.add(round=number, name="ppm_pair_accuracy", value=value, split="heldout", pairs=count, **more)
        progress.say(f"round {number}: ppm_pair_accuracy {value:.3f} over {count} pairs ({kind or 'all'})")


def _pairs(problem: Problem, tree, settings) -> list[dict]:
    return list(preference_rows([problem], {problem.id: [tree]}, settings.pairs))


def _numbers(own: Measurement, measured: Mapping[str, Sequence[dict]], settings: EvaluationConfig) -> list[dict]:
    """The numbers of a measurement, and after the last one the paired differences."""
    rows = measured[own.name]
    numbers = evaluation.summarise(rows, settings.headline_levels)
    if isinstance(own, EqualTokens):
        numbers.append({"name": f"{own.name}_samples", "value": own.n(measured)})
    elif rows and not isinstance(own, Greedy):
        tokens = sum(row["tokens"] for row in rows)
        each = len(rows) if isinstance(own, Search) else sum(len(row["answers"]) for row in rows)
        name = f"{own.name.removesuffix('s')}_tokens"  # of a search; of one sample
        numbers.append({"name": name, "value": tokens / each})
    if own in settings.of_the_last_round[-1:]:
        minuends = evaluation.minuends(settings.measurements)
        numbers += evaluation.differences(measured, minuends, settings.headline_levels)
    return numbers
