"""Searches the problems of a round: pass by pass, and each pass shard by shard."""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator

from etils import epath

from rstar_jax import files, models
from rstar_jax.decoding import Engine, compiled_programs
from rstar_jax.evolution import progress
from rstar_jax.evolution.config import DIFFICULTIES
from rstar_jax.evolution.run import Run
from rstar_jax.evolution.run_folder import Shards, Taken
from rstar_jax.evolution.world import prompt_after
from rstar_jax.problems import Problem
from rstar_jax.search import Ends, SearchStats, ShardsWriter, all_ends, search, shard_ends


def trees_folder(number: int, place: int) -> str:
    """Where the trees of a pass lie, in the run; the first pass is 1."""
    return f"round_{number}/trees_{place}"


def speed_folder(number: int, place: int) -> str:
    """Where the processes that search say how busy they were: one file each."""
    return f"round_{number}/speed_{place}"


class SearchedPass:
    """One pass of a round; the first is 1."""

    def __init__(self, run: Run, number: int, place: int):
        self._run, self._number, self._place = run, number, place
        self._own = run.round(number).passes[place - 1]
        self._total = run.config.shards

    def shards(self) -> Shards:
        """Its work."""
        return Shards(folder=trees_folder(self._number, self._place), total=self._total, work=self._search)

    def asked(self, shard: int) -> list[Problem]:
        """The problems of a shard that it searches."""
        problems = self._run.problems(self._run.round_problems(self._number)).shard(shard)
        if self._own.asks_all:
            return problems
        found: dict[str, Ends] = {}
        for place in range(1, self._place):
            _add(found, shard_ends(self._trees(place), shard, self._total))
        return [problem for problem in problems if found.get(problem.id, Ends()).difficulty in self._own.only]

    def finish(self) -> None:
        """The numbers of the pass: what was searched, and how hard the round's problems are, by all its passes."""
        found: dict[str, Ends] = {}
        for place in range(1, self._place + 1):
            own = all_ends(self._trees(place), self._total)
            _add(found, own)
        kind, add = f"pass {self._place}", self._run.folder.add
        counts = dict.fromkeys(DIFFICULTIES, 0)
        for ends in found.values():
            counts[ends.difficulty] += 1
        counts["hard"] += len(self._run.problems(self._run.round_problems(self._number))) - len(found)
        numbers = {f"{difficulty}_problems": count for difficulty, count in counts.items()}
        numbers |= {"searched_problems": len(own), "searched_tokens": sum(ends.tokens for ends in own.values())}
        for name, value in numbers.items():
            add(round=self._number, name=name, value=value, split="train", kind=kind)
        for name, value in _Speed.read(self._run.folder.path / speed_folder(self._number, self._place)).items():
            add(round=self._number, name=f"speed_{name}", value=value, split="train", kind=kind)
        progress.say(
            f"round {self._number}, {kind}: searched {len(own)} problems; so far "
            + ", ".join(f"{count} {difficulty}" for difficulty, count in counts.items())
        )

    def _trees(self, place: int) -> epath.Path:
        return self._run.folder.path / trees_folder(self._number, place)

    def _engine(self) -> Engine:
        """Who searches: the annotator of the round, or the policy of the round before."""
        run, settings = self._run, self._run.round(self._number)
        if settings.annotator is None:
            policy = run.policy(self._number - 1)
        else:
            own = settings.annotator
            policy = models.load(models.find(own.source), run.world.mesh, own.dtype)
        ppm = run.ppm(self._number - 1) if self._own.search.needs_scorer else None
        return run.world.engine(policy, ppm, seed=run.config.seed + self._number)

    def _search(self, taken: Taken) -> None:
        engine = self._engine()
        folder = self._run.folder.path / speed_folder(self._number, self._place)
        speed = _Speed(folder, engine, self._run.world.verifier.workers)
        total, title = self._size(), f"round {self._number}: search {self._place}"
        done = total - self._size(self._run.folder.missing_shards(self.shards()))
        with progress.bar(title, total, "trees", done) as advance_to:

            def on_progress(stats: SearchStats) -> None:
                advance_to(done + stats.finished_trees, f"{stats.expansions} expansions")

            for shards in [taken] if self._run.config.overlap else ([shard] for shard in taken):
                engine.begin()  # a shard's trees are the same whether or not others were searched before it
                self._search_together(shards, engine, speed, on_progress)
        speed.write()

    def _search_together(
        self,
        shards: Iterable[int],
        engine: Engine,
        speed: "_Speed",
        on_progress: Callable[[SearchStats], None],
    ) -> None:
        """Searches shards without a border between them; each is written when its last tree has ended."""
        run, settings = self._run, self._run.round(self._number)
        with ShardsWriter(self._trees(self._place), self._total) as writer:

            def problems() -> Iterator[Problem]:
                for shard in shards:
                    own = self.asked(shard)
                    writer.begin(shard, own, self._own.trees)
                    yield from own

            trees = search(
                problems(),
                sampler=engine,
                scorer=engine,
                verifier=run.world.verifier,
                grader=run.world.grader,
                config=self._own.search,
                seed=run.config.seed,
                trajectories=self._own.trees,
                first_trajectory=sum(own.trees for own in settings.passes[: self._place - 1]),
                prompt=prompt_after(settings.annotator and settings.annotator.few_shot),
                scheduling=run.config.scheduling.after(speed.seconds),
                on_progress=on_progress,
                stats=speed.stats,
            )
            with contextlib.closing(trees):
                for tree in trees:
                    if writer.add(tree) is not None:
                        speed.write()

    def _size(self, shards: Iterable[int] | None = None) -> int:
        """How many trees some shards will have, or all; those of later passes are not told apart by shard."""
        sizes = self._run.problems(self._run.round_problems(self._number)).sizes
        if self._own.asks_all:
            return self._own.trees * sum(sizes if shards is None else (sizes[shard] for shard in shards))
        rows = self._run.folder.rows(f"{self._number}_search_{self._place - 1}") or []
        there = {row["name"].removesuffix("_problems"): row["value"] for row in rows}
        asked = self._own.trees * sum(there.get(difficulty, 0) for difficulty in self._own.only)
        return asked if shards is None else round(asked * len(list(shards)) / self._total)


def _add(found: dict[str, Ends], more: dict[str, Ends]) -> None:
    for problem, own in more.items():
        found[problem] = found.get(problem, Ends()) + own


class _Speed:
    """How busy a process was. The names begin with "speed_", because a resumed run has other numbers here."""

    def __init__(self, folder: epath.Path, engine: Engine, workers: int):
        """workers: of the verifier."""
        self.stats, self._workers = SearchStats(), workers
        self._file = folder / f"{secrets.token_hex(8)}.json"
        self._engine, self._start = engine, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._start

    def write(self) -> None:
        """Says how busy it has been until now."""
        engine, seconds = self._engine, self.seconds
        values = {
            "seconds": seconds,
            "worker_seconds": seconds * self._workers,
            "engine_seconds": engine.stats.seconds,
            "expansions": self.stats.expansions,
            "program_seconds": self.stats.program_seconds,
            "unverified_programs": self.stats.unverified_programs,
            "undecided_answers": self.stats.undecided_answers,
            "out_of_time_trees": self.stats.out_of_time,
            "lane_utilisation": engine.stats.lane_utilisation,
            "computed_per_unique_token": engine.computed_per_unique_token,
            "pool_occupancy": engine.occupancy,
            "compiled_programs": compiled_programs(),
        }
        files.publish(self._file, json.dumps(values))

    @staticmethod
    def read(folder: epath.Path) -> dict[str, float]:
        """The numbers of all processes together; what their engines say of themselves, on average."""
        own = [json.loads(content) for content in files.markers(folder, ".json").values()]
        total = {name: sum(each[name] for each in own) for name in own[0]} if own else {}
        if not own or not total["seconds"]:
            return {}
        means = ("lane_utilisation", "computed_per_unique_token", "pool_occupancy", "compiled_programs")
        return {
            "expansions_per_second": total["expansions"] / total["seconds"],
            "accelerator_busy": total["engine_seconds"] / total["seconds"],
            "verifier_busy": total["program_seconds"] / total["worker_seconds"],
            **{name: total[name] / len(own) for name in means},
            "unverified_programs": total["unverified_programs"],
            "undecided_answers": total["undecided_answers"],
            "out_of_time_trees": total["out_of_time_trees"],
        }
