"""What a run is made of: its phases in order, what each depends on, which it builds on, and what it writes."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rstar_jax.evaluation import Measurement, Search
from rstar_jax.evolution.annotate import SearchedPass, speed_folder, trees_folder
from rstar_jax.evolution.config import Benchmark, Pass, Round, Scratch
from rstar_jax.evolution.measure import measure, measure_pairs
from rstar_jax.evolution.run import EXAMPLES, Run, benchmark_set, problems_folder
from rstar_jax.evolution.run_folder import Phase, Shards
from rstar_jax.evolution.select import Selection, policy_data, preference_data, selection_folder
from rstar_jax.evolution.train import CONTROL, make_base, train_control, train_policy, train_ppm
from rstar_jax.evolution.world import prompt_after
from rstar_jax.problems.sources import Source
from rstar_jax.problems.stored import write_problems

BASE = "0_base"
IMPORTED = "imported"  # begins the settings of a base that was


def plan(run: Run) -> list[Phase]:
    """All phases of a run, in order. A base that was imported stays what it is."""
    return _Plan(run).phases


class _Plan:
    """Adds the phases, each behind those that it builds on."""

    def __init__(self, run: Run):
        self.run, self.config = run, run.config
        self.phases: list[Phase] = []
        self.sets = {benchmark.name: self._add_benchmark(benchmark) for benchmark in self.config.benchmarks}
        self.examples: list[str] = []
        self.base = self._add_base()
        self.train: str | None = None
        policy, ppm, selected = self.base, None, []
        self._add_greedy(0, policy)
        for number, settings in enumerate(self.config.rounds, start=1):
            problems = self._add_round_problems(number, settings)
            searched: list[str] = []
            for place, own in enumerate(settings.passes, start=1):
                annotators = [] if settings.annotator else [policy]
                judges = [ppm] if own.search.needs_scorer else []
                searched.append(self._add_pass(number, place, own, [problems, *annotators, *judges, *searched]))
            selected.append(self._add_selection(number, settings, [problems, self.base, *searched]))
            learned = selected[-1:] if settings.learn_from == "round" else selected
            policy, ppm = self._add_training(number, settings, learned)
            self._add_greedy(number, policy)
        self._add_the_last(policy, ppm)

    def _add(
        self,
        number: int,
        title: str,
        do: Callable[[], None],
        settings: Mapping[str, Any] | str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        shards: Shards | None = None,
    ) -> str:
        """Adds a phase; returns its name."""
        name = f"{number}_{title}"
        self.phases.append(
            Phase(
                name=name,
                round=number,
                settings=settings,
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                work=do,
                shards=shards,
            )
        )
        return name

    def _add_problems(self, number: int, title: str, name: str, source: Source, limit: int | None = None) -> str:
        def write() -> None:
            problems = source.read()[:limit]
            write_problems(problems_folder(self.run.folder.path, name), problems, self.config.shards)

        settings = {"problems": source, "shards": self.config.shards, "limit": limit}
        return self._add(number, title, write, settings, (), [f"problems/{name}"])

    def _add_benchmark(self, own: Benchmark) -> str:
        return self._add_problems(0, f"problems_{own.name}", benchmark_set(own.name), own.problems, own.limit)

    def _add_round_problems(self, number: int, settings: Round) -> str:
        if settings.problems is not None:
            return self._add_problems(number, "problems", f"round_{number}", settings.problems)
        if self.train is None:
            self.train = self._add_problems(0, "problems", "train", self.config.problems)
        return self.train

    def _add_base(self) -> str:
        base, do = self.config.base, functools.partial(make_base, self.run)
        before = self.run.folder.settings(BASE)
        if isinstance(base, Scratch):
            self.examples = [self._add_problems(0, EXAMPLES, EXAMPLES, base.examples)]
        if before is not None and before.startswith(IMPORTED):
            return self._add(0, "base", do, before, (), ["round_0/policy"])
        if not isinstance(base, Scratch):
            settings = {"source": base.source, "dtype": base.dtype}
            return self._add(0, "base", do, settings, (), ["round_0/policy"])
        settings = {
            "model": base.model,
            "training": base.training.decisive,
            "tail_share": base.tail_share,
            "questions": base.questions,
            "seed": self.config.seed,
        }
        return self._add(0, "base", do, settings, self.examples, ["round_0/policy", "round_0/policy_training"])

    def _add_pass(self, number: int, place: int, own: Pass, inputs: Sequence[str]) -> str:
        settings = {
            "search": own.search,
            "only": own.only,
            "trees": own.trees,
            "sampling": self.config.decoding.sampling,
            "shards": self.config.shards,
            **self.config.decisive,
        }
        annotator = self.run.round(number).annotator
        if annotator is not None:
            settings |= {
                "annotator": annotator.source,
                "annotator_dtype": annotator.dtype,
                "few_shot": digest(annotator.few_shot),
            }
        work = SearchedPass(self.run, number, place)
        outputs = [trees_folder(number, place), speed_folder(number, place)]
        return self._add(number, f"search_{place}", work.finish, settings, inputs, outputs, work.shards())

    def _add_selection(self, number: int, settings: Round, inputs: Sequence[str]) -> str:
        kept = {"pairs": settings.pairs, "trajectories": settings.trajectories, "shards": self.config.shards}
        work = Selection(self.run, number)
        # The markers first: what has none is made again.
        outputs = [selection_folder(number), policy_data(number), preference_data(number)]
        return self._add(number, "select", work.finish, kept, inputs, outputs, work.shards())

    def _add_training(self, number: int, settings: Round, learned: Sequence[str]) -> tuple[str, str]:
        taught = {"training": settings.policy.decisive, "replay": settings.replay}
        replayed = []
        if settings.replay:
            taught["tail_share"], replayed = self.config.base.tail_share, self.examples
        policy = self._add(
            number,
            "policy",
            functools.partial(train_policy, self.run, number),
            taught,
            [self.base, *replayed, *learned],
            self._model(number, "policy"),
        )
        ppm = self._add(
            number,
            "ppm",
            functools.partial(train_ppm, self.run, number),
            {"training": settings.ppm.decisive, "value_scale": self.config.value_scale},
            [policy, *learned],
            self._model(number, "ppm"),
        )
        return policy, ppm

    def _add_measurement(
        self, number: int, benchmark: Benchmark, own: Measurement, kind: str, inputs: Sequence[str], title: str, **more
    ) -> str:
        settings = self.config.measured(benchmark)
        measured = {
            "measurement": own,
            **self.config.decisive,
            "headline_levels": settings.headline_levels,
            "dtype": settings.dtype,
            "few_shot": digest(settings.few_shot),
            **more,
        }
        do = functools.partial(measure, self.run, number, benchmark, own, kind)
        folder = f"round_{number}/{kind}_evaluation/{benchmark.name}"
        outputs = [folder, *[f"round_{number}/{benchmark.name}_trees"] * isinstance(own, Search)]
        return self._add(number, f"evaluate_{title}", do, measured, inputs, outputs)

    def _add_greedy(self, number: int, policy: str, kind: str = "policy") -> None:
        """Greedy accuracy after a round, of the benchmarks that want it."""
        for benchmark in self.config.benchmarks:
            if benchmark.rounds == "last" and number < self.run.last:
                continue
            title = benchmark.name if kind == "policy" else f"{kind}_{benchmark.name}"
            for own in self.config.measured(benchmark).of_every_round:
                self._add_measurement(number, benchmark, own, kind, [self.sets[benchmark.name], policy], title)

    def _add_the_last(self, policy: str, ppm: str) -> None:
        """What is done after the last round: the control, and all that is measured once."""
        last, settings = self.run.last, self.config.rounds[-1]
        if self.config.control:
            equal = {"training": settings.policy.decisive, "tail_share": self.config.base.tail_share}
            do = functools.partial(train_control, self.run)
            control = self._add(last, CONTROL, do, equal, [self.base, *self.examples], self._model(last, CONTROL))
            self._add_greedy(last, control, CONTROL)
        for benchmark in self.config.benchmarks:
            inputs, before = [self.sets[benchmark.name], policy, ppm], ()
            for own in self.config.measured(benchmark).of_the_last_round:
                title = f"{benchmark.name}_{own.name}"
                name = self._add_measurement(last, benchmark, own, "policy", inputs, title, before=before)
                inputs, before = [*inputs, name], (*before, own)
        if self.config.benchmarks:
            benchmark = self.config.benchmarks[0]
            measured = self.config.measured(benchmark)
            pairs = self.config.decisive | {
                "search": settings.passes[0].search,
                "pairs": settings.pairs,
                "headline_levels": measured.headline_levels,
                "pair_problems": measured.pair_problems,
            }
            do = functools.partial(measure_pairs, self.run, last)
            self._add(last, "evaluate_pairs", do, pairs, [self.sets[benchmark.name], policy, ppm], ())

    @staticmethod
    def _model(number: int, name: str) -> list[str]:
        return [f"round_{number}/{name}{part}" for part in ("", "_training", "_adapters")]


def digest(few_shot: str | None) -> str:
    """Of the text that stands before a question."""
    return hashlib.sha256(prompt_after(few_shot)("").encode()).hexdigest()[:16]
