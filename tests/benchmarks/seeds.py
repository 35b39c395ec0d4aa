"""The README's tables of the embedded default, from the run folders of several seeds: mean and standard error.

for seed in 0 1 2 3 4; do launch/local.sh evolve --run_dir=runs/$seed --gin.SEED=$seed; done
python -m tests.benchmarks.seeds runs/0 runs/1 runs/2 runs/3 runs/4
"""

import statistics
import sys

from rstar_jax.report.metrics import CONTROL, Metrics, read_metrics

LEVELS = tuple("123456")
AT_THE_END = {
    f"{CONTROL}greedy_accuracy": "greedy of the control",
    "greedy_accuracy": "greedy",
    "majority_accuracy": "majority of 8 samples",
    "equal_tokens_majority_accuracy": "majority of as many samples as cost the tokens of the search",
    "best_of_n_accuracy": "best of 8 samples, chosen by the PPM",
    "search_accuracy": "search of 8 rollouts, chosen by the PPM",
    "pass_at_8": "at least one of 8 samples",
    "ppm_pair_accuracy": "PPM: pairs of held-out trees",
}


def cell(runs: list[Metrics], name: str, round: int, split: str, level: str | None = None) -> str:
    """Mean ± standard error over the runs that have the number."""
    found = [metric.value for run in runs if (metric := run.get(name, round, split, level=level)) is not None]
    if not found:
        return "–"
    error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
    return f"{statistics.mean(found):.3f} ± {error:.3f}"


def table(corner: str, columns: list[str], rows: list[tuple[str, list[str]]]) -> None:
    """Prints a table in Markdown."""
    print("|".join(["", corner, *columns, ""]).replace("|", " | ").strip())
    print("|---" * (len(columns) + 1) + "|")
    for title, cells in rows:
        print(f"| {title} | {' | '.join(cells)} |")
    print()


def main(folders: list[str]) -> None:
    """Prints coverage by level and round, greedy accuracy by round, what there is at the end, and the minutes."""
    runs = [read_metrics(folder) for folder in folders]
    rounds = sorted({metric.round for metric in runs[0].named("solved_share")})
    last = rounds[-1]
    columns = [f"round {number}" for number in rounds]
    solved = [(f"level {n}", [cell(runs, "solved_share", number, "train", n) for number in rounds]) for n in LEVELS]
    table("solved in search", columns, solved)

    def greedy(level: str | None) -> list[str]:
        by_round = [cell(runs, "greedy_accuracy", number, "heldout", level) for number in (0, *rounds)]
        return [*by_round, cell(runs, f"{CONTROL}greedy_accuracy", last, "heldout", level)]

    rows = [("levels 3 to 6", greedy(None)), *((f"level {level}", greedy(level)) for level in LEVELS)]
    table("greedy, held-out", ["bootstrap", *columns, "control"], rows)
    end = [
        (title, [cell([run], name, last, "heldout").split()[0] for run in runs]) for name, title in AT_THE_END.items()
    ]
    for (_, cells), name in zip(end, AT_THE_END, strict=True):
        cells.append(cell(runs, name, last, "heldout"))
    table("levels 3 to 6, round 4", [*(f"seed {i}" for i in range(len(runs))), "mean ± standard error"], end)
    minutes = [sum(metric.value for metric in run.named("phase_seconds")) / 60 for run in runs]
    print("minutes:", " ".join(f"{own:.1f}" for own in minutes))


if __name__ == "__main__":
    main(sys.argv[1:])
