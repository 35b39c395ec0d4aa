"""The four rounds of rStar-Math in one resumable command (paper: section 3.4).

    problems -> base -> [search -> select -> policy -> PPM -> evaluate] x rounds -> control -> report

Each arrow is a phase of the run folder: done once, or begun again. Nothing is handed from phase to phase in memory that
is not read back from the folder, so a resumed run and an undisturbed one see the same bytes.
"""

import dataclasses
import datetime
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
from etils import epath

from rstar_jax import configuration, evaluation, files, models
from rstar_jax.decoding import Engine, compiled_programs
from rstar_jax.evaluation import EqualTokens, Greedy, Measurement, Search
from rstar_jax.evolution import data, progress
from rstar_jax.evolution.config import EvolutionConfig, RoundConfig
from rstar_jax.evolution.plan import BASE, CONTROL, IMPORTED, plan
from rstar_jax.evolution.run_folder import RunFolder, dependents
from rstar_jax.evolution.world import World, open_world, policy_loss, preference_loss, prompt_after
from rstar_jax.models import Policy, Preference
from rstar_jax.problems import Problem, datasets
from rstar_jax.report import report
from rstar_jax.search import SearchStats, missing_shards, read_trees, search, search_all, write_shard
from rstar_jax.training import TrainingConfig, trainer
from rstar_jax.trajectory import steps
from rstar_jax.trajectory.tokenizer import Tokenizer

Model = TypeVar("Model", Policy, Preference)


def evolve(config: EvolutionConfig, run_dir: epath.PathLike, redo: str | None = None) -> epath.Path:
    """Runs all rounds, or what is left of them; returns the path of the report.

    redo: a phase that is done again first, with all that depends on it.
    Raises: ValueError, before anything is written, where a phase was made with other settings; `files.Held` while
    another process is at work on the run.
    """
    folder = RunFolder(run_dir)
    if jax.config.jax_compilation_cache_dir is None:  # a resumed run compiles nothing again
        jax.config.update("jax_compilation_cache_dir", str(folder.path / "compiled"))
    base = folder.settings(f"0_{BASE}")
    planned = plan(config, base, Evolution(config, folder, None))
    again = [] if redo is None else dependents(redo, planned)
    if base is not None and base.startswith(IMPORTED) and f"0_{BASE}" in [phase.name for phase in again]:
        raise ValueError(f"--redo={redo}: the base of {run_dir} was imported: `rstar import` makes one, of a new run")
    folder.check([phase for phase in planned if phase not in again])
    with folder.held(), open_world(config) as world:
        folder.drop(again)
        files.publish(folder.path / "config.gin", configuration.operative(config))
        device = jax.devices()[0]
        folder.log_start(
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            python=platform.python_version(),
            jax=jax.__version__,
            devices=f"{jax.device_count()} {device.device_kind}",
            isolation=world.verifier.layers,
        )
        folder.run(plan(config, base, Evolution(config, folder, world)))
    return report(folder.path)


def _said(row: Mapping[str, Any]) -> str:
    """A number with its standard error and what it is the mean of."""
    if "level" in row:
        return f"level {row['level']}: {row['value']:.3f}"
    error = f" ± {row['error']:.3f} of {row['n']} problems" if "error" in row else ""
    undecided = f", {row['undecided']} undecided" if row.get("undecided") else ""
    return f"{row['value']:.3f}{error}{' of levels ' + row['levels'] if 'levels' in row else ''}{undecided}"


class Evolution:
    """Does the phases of a run (`plan`), over its folder. Without a world they can be planned, not done."""

    def __init__(self, config: EvolutionConfig, folder: RunFolder, world: World | None):
        self.config, self.folder, self.world = config, folder, world
        self.rounds = len(config.rounds)

    def _round(self, number: int) -> RoundConfig:
        return self.config.rounds[number - 1]

    def _problems(self, split: str) -> list[Problem]:
        return datasets.read_problems(self.folder.path / "problems", split)

    def _policy(self, number: int, name: str = "policy", dtype: str | None = None) -> Policy:
        return models.load(self.folder.round(number) / name, self.world.mesh, dtype)

    def _ppm(self, number: int) -> Preference:
        return models.load_preference(self.folder.round(number) / "ppm", self.world.mesh)

    def prepare_problems(self) -> None:
        """Generates the problems of all splits."""
        progress.say("generating problems")
        datasets.prepare_procedural(self.folder.path / "problems", self.config.problems, self.config.seed)

    # Training

    def _train(self, number: int, name: str, start: Model, batch_at: data.BatchAt, config: TrainingConfig) -> Model:
        """One training: its bar, its losses in the metrics, and checkpoints from which it goes on if it is killed."""
        loss = preference_loss(start.config) if isinstance(start, Preference) else policy_loss(start.config)
        under_way = self.folder.round(number) / f"{name}_training"
        with progress.bar(f"round {number}: train {name}", config.steps, "steps") as advance_to:
            trained, history = trainer.train(
                loss,
                start.parameters,
                batch_at,
                config,
                self.world.mesh,
                checkpoints=under_way,
                on_step=lambda step, values: advance_to(step + 1, progress.numbers(values)),
            )
        every = max(config.steps // 20, 1)
        for end in range(every, config.steps + 1, every):
            for key in history[0]:
                mean = sum(row[key] for row in history[end - every : end]) / every
                self.folder.add(round=number, name=f"{name}_{key}", value=mean, split="train", step=end)
        return dataclasses.replace(start, parameters=trained)

    def _keep(self, number: int, name: str, model: Model) -> None:
        """Writes a finished model; the checkpoints of its training are not needed any more.

        They are renamed before they are removed: a training never goes on from what a kill has left of them.
        """
        models.save(model, self.folder.round(number) / name)
        under_way, removed = (self.folder.round(number) / f"{name}_{what}" for what in ("training", "training.removed"))
        removed.rmtree(missing_ok=True)
        if under_way.exists():
            under_way.rename(removed)
            removed.rmtree(missing_ok=True)

    def _bootstrap_rows(self) -> list[dict]:
        return sorted(datasets.read(self.folder.path / "problems", "bootstrap"), key=lambda row: row["id"])

    def _bootstrap_sources(self, config: TrainingConfig, tokenizer: Tokenizer) -> tuple[list[list], list[float]]:
        """The worked examples, those of level 1 and the tail of harder ones apart, and the shares of the two."""
        rows = self._bootstrap_rows()
        sources = []
        for tail in (False, True):
            own = [row for row in rows if (row["level"] != "1") == tail]
            own = [{"question": row["question"], "response": row["worked_example"]} for row in own]
            sources.append(data.policy_examples(own, tokenizer, config))
        return sources, [1 - self.config.tail_share, self.config.tail_share]

    def bootstrap(self) -> None:
        """The base of all rounds: a tokenizer and a policy from worked examples and questions."""
        config = self.config.bootstrap
        corpus = [steps.prompt(row["question"]) + row["worked_example"] for row in self._bootstrap_rows()]
        for number in range(1, self.rounds + 1):
            corpus += [steps.prompt(problem.question) for problem in self._problems(f"round_{number}")]
        tokenizer = Tokenizer.train(corpus, self.config.model.vocabulary_size)
        start = models.fresh(self.config.model, self.world.mesh, tokenizer, self.config.seed)
        batch_at = data.policy_batches(*self._bootstrap_sources(config, tokenizer), config)
        self._keep(0, "policy", self._train(0, "policy", start, batch_at, config))

    def train_policy(self, number: int) -> None:
        """From the base, on the trajectories of all rounds so far and some bootstrap examples."""
        settings, base = self._round(number), self._policy(0)
        config = settings.policy
        rows = [row for n in range(1, number + 1) for row in data.read_rows(self.folder.round(n) / "policy_data")]
        own = data.policy_examples(rows, base.tokenizer, config)
        replay = settings.replay if own else 1.0
        sources, shares = self._bootstrap_sources(config, base.tokenizer)
        shares = [1 - replay, *(replay * share for share in shares)]
        batch_at = data.policy_batches([own, *sources], shares, config)
        self._keep(number, "policy", self._train(number, "policy", base, batch_at, config))

    def train_ppm(self, number: int) -> None:
        """From this round's policy, on the pairs of all rounds so far."""
        config = self._round(number).ppm
        rows = [row for n in range(1, number + 1) for row in data.read_rows(self.folder.round(n) / "preference_data")]
        ppm = models.preference_from_policy(self._policy(number), self.config.value_scale)
        examples = data.preference_examples(rows, ppm.tokenizer, config)
        if examples:
            ppm = self._train(number, "ppm", ppm, data.preference_batches(examples, config), config)
        else:
            progress.say(f"round {number}: no preference pairs, so the PPM prefers nothing")
        self._keep(number, "ppm", ppm)

    def train_control(self) -> None:
        """What equal steps on the bootstrap's examples alone would have given."""
        config, base = self.config.rounds[-1].policy, self._policy(0)
        batch_at = data.policy_batches(*self._bootstrap_sources(config, base.tokenizer), config)
        self._keep(self.rounds, CONTROL, self._train(self.rounds, CONTROL, base, batch_at, config))

    # Search

    def annotate(self, number: int) -> None:
        """Searches the round's problems, shard by shard, with the policy and the PPM of the round before."""
        problems, settings = self._problems(f"round_{number}"), self._round(number)
        ppm = self._ppm(number - 1) if settings.search.needs_scorer else None
        engine = self.world.engine(self._policy(number - 1), ppm, seed=self.config.seed + number)
        stats, start = SearchStats(), time.perf_counter()
        trees_folder = self.folder.round(number) / "trees"
        total = self.config.shards
        with progress.bar(f"round {number}: search", len(problems), "trees") as advance_to:
            missing = missing_shards(trees_folder, total)
            done = len(problems) - sum(len(problems[shard::total]) for shard in missing)
            for shard in missing:

                def on_progress(stats: SearchStats, before: int = done - stats.finished_trees) -> None:
                    advance_to(before + stats.finished_trees, f"{stats.expansions} expansions")

                engine.begin()  # a shard's trees are the same whether or not others were searched before it
                trees = search(
                    problems[shard::total],
                    sampler=engine,
                    scorer=engine,
                    verifier=self.world.verifier,
                    grader=self.world.grader,
                    config=settings.search,
                    seed=self.config.seed,
                    prompt=prompt_after(settings.few_shot),
                    scheduling=self.config.scheduling,
                    on_progress=on_progress,
                    stats=stats,
                )
                write_shard(trees_folder, shard, total, trees)  # each as it ends
                done += len(problems[shard::total])
        self._note_speed(number, engine, stats, time.perf_counter() - start)

    def _note_speed(self, number: int, engine: Engine, stats: SearchStats, seconds: float) -> None:
        """How busy everything was; the names begin with "speed_", because a resumed run has other numbers here."""
        values = {
            "expansions_per_second": stats.expansions / seconds,
            "accelerator_busy": engine.stats.seconds / seconds,
            "verifier_busy": stats.program_seconds / seconds / self.world.verifier.workers,
            "lane_utilisation": engine.stats.lane_utilisation,
            "computed_per_unique_token": engine.computed_per_unique_token,
            "pool_occupancy": engine.occupancy,
            "compiled_programs": compiled_programs(),
            "unverified_programs": stats.unverified_programs,
            "undecided_answers": stats.undecided_answers,
        }
        for name, value in values.items():
            self.folder.add(round=number, name=f"speed_{name}", value=value, split="train")

    def select(self, number: int) -> None:
        """Writes the policy's trajectories and the PPM's pairs; notes what was solved, and how honestly."""
        folder, settings = self.folder.round(number), self._round(number)
        trees = sorted(read_trees(folder / "trees"), key=lambda tree: tree.problem.id)
        trajectories = data.policy_rows(trees, settings.trajectories, settings.pairs)
        pairs = data.preference_rows(trees, settings.pairs)
        data.write_rows(folder / "policy_data", trajectories, data.POLICY_FEATURES)
        data.write_rows(folder / "preference_data", pairs, data.PREFERENCE_FEATURES)
        wrong, checked = evaluation.false_positive_share(trees, self.world.verifier, trajectories=settings.trajectories)
        solved = [float(any(tree.correct == 1)) for tree in trees]
        rows = [
            {"level": tree.problem.level, "values": {"solved_share": value}}
            for tree, value in zip(trees, solved, strict=True)
        ]
        self._note(number, evaluation.summarise(rows, self.config.evaluation.headline_levels), "train")
        add = self.folder.add
        add(round=number, name="false_positive_share", value=wrong, split="train", checked=checked)
        add(round=number, name="trajectories", value=len(trajectories), split="train")
        add(round=number, name="preference_pairs", value=len(pairs), split="train")
        progress.say(
            f"round {number}: solved {sum(solved) / len(solved):.3f} of {len(trees)} problems, "
            f"{len(trajectories)} trajectories ({wrong:.3f} by wrong programs), {len(pairs)} preference pairs"
        )

    # Evaluation

    def measure(self, number: int, until: Measurement, kind: str) -> None:
        """Measures a round's policy; the phases before have left the rows of the measurements that come before.

        kind: "policy" or "control", the name of its folder; the control's numbers are called by it.
        """
        settings, folder = self.config.evaluation, self.folder.round(number)
        greedy, others = settings.of_every_round, settings.of_the_last_round
        others = others[: others.index(until) + 1] if until in others else []
        prefix = f"{CONTROL}_" if kind == CONTROL else ""
        policy = self._policy(number, kind, settings.dtype)
        ppm = self._ppm(number) if others else None
        bench = self.world.bench(policy, ppm, self.config, folder / "heldout_trees")
        rows = folder / f"{kind}_evaluation"
        problems = self._problems("heldout")
        measured = evaluation.measure(problems, greedy, bench, rows, settings.piece)
        measured |= evaluation.measure(self._headline(problems), others, bench, rows, settings.piece)
        self._note(number, [{**row, "name": prefix + row["name"]} for row in self._numbers(until, measured)])

    def _numbers(self, own: Measurement, measured: Mapping[str, list[dict]]) -> list[dict]:
        """The numbers of a measurement, and after the last one the paired differences."""
        settings, rows = self.config.evaluation, measured[own.name]
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

    def _headline(self, problems: Sequence[Problem]) -> list[Problem]:
        return evaluation.headline_problems(problems, self.config.evaluation.headline_levels)

    def _note(self, number: int, rows: Sequence[Mapping[str, Any]], split: str = "heldout") -> None:
        """Adds numbers to the metrics, and says them."""
        for row in rows:
            self.folder.add(round=number, split=split, **row)
        for name in dict.fromkeys(row["name"] for row in rows if "trajectories" not in row):
            said = [_said(row) for row in rows if row["name"] == name]
            progress.say(f"round {number}: {name} {', '.join(said)}")

    def measure_pairs(self, number: int) -> None:
        """Does the last PPM tell good steps from bad ones on problems that nothing was trained on?

        The trees are annotated by the ground truth alone, so that the PPM has no say in which pairs there are.
        """
        settings = self._round(number)
        problems = self._headline(self._problems("heldout"))
        problems = problems[:: max(len(problems) // self.config.evaluation.pair_problems, 1)]
        search_config = dataclasses.replace(settings.search, value_mode="terminal", beam_width=None)
        ppm = self._ppm(number)
        engine = self.world.engine(self._policy(number), ppm, seed=self.config.seed + 1000)
        trees = search_all(
            problems,
            sampler=engine,
            verifier=self.world.verifier,
            grader=self.world.grader,
            config=search_config,
            seed=self.config.seed,
            scheduling=self.config.scheduling,
        )
        accuracy = evaluation.pair_accuracy(
            [data.preference_rows([tree], settings.pairs) for tree in trees],
            engine,
            ppm.tokenizer,
        )
        for kind, (value, count) in accuracy.items():
            more = {} if kind is None else {"kind": kind}
            self.folder.add(round=number, name="ppm_pair_accuracy", value=value, split="heldout", pairs=count, **more)
            progress.say(f"round {number}: ppm_pair_accuracy {value:.3f} over {count} pairs ({kind or 'all'})")
