"""A small run folder: numbers of three rounds and a tree or two of each, made by hand."""

import json
import pathlib

from rstar_jax.problems.problem import Problem
from rstar_jax.search import storage
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree

HOSTILE = "<script>alert('step')</script>"
LEVELS = ("1", "2", "4", "10")


def metrics(rounds: int = 3) -> list[dict]:
    """What a run writes: means, levels, losses, seconds; after the last round the control, samples, search, pairs."""
    lines = []

    def add(name: str, value: float, split: str = "heldout", **more) -> None:
        lines.append({"round": round, "name": name, "value": value, "split": split, **more})

    def add_levels(name: str, value: float, split: str = "heldout") -> None:
        add(name, value, split)
        for level in LEVELS:
            add(name, min(1, max(0, value + 0.125 * (3 - int(level) / 3))), split, level=level)

    def add_losses(name: str, start: float) -> None:
        for step in range(10, 201, 10):
            add(name, start / (1 + 0.03 * step), "train", step=step)

    for round in range(rounds):  # noqa: B007 (add reads it)
        greedy = 0.125 + 0.1875 * round
        phases = ["problems", "bootstrap", "evaluate"]
        add_losses("policy_loss", 2.0 / (1 + round))
        if round:
            phases = ["search", "select", "policy", "ppm", "evaluate"]
            add_losses("ppm_loss", 0.7 / round)
            add_losses("ppm_pair_accuracy", 0.55)
            add_levels("solved_share", 0.4 + 0.125 * round, "train")
            add("false_positive_share", 0.04 / round, "train", checked=100)
            add("trajectories", 1000 + 300 * round, "train")
            add("preference_pairs", 4000 + 2000 * round, "train")
        add_levels("greedy_accuracy", greedy)
        for index, phase in enumerate(phases):
            seconds = 10.0 + 7 * index + 30 * round * (phase == "search")
            add("phase_seconds", seconds, "train", phase=phase, seconds=seconds)
    if rounds > 1:
        add_losses("control_loss", 1.0)
        add_levels("control_greedy_accuracy", 0.225)
        add_levels("majority_accuracy", greedy + 0.03)
        add_levels("pass_at_8", greedy + 0.11)
        add_levels("best_of_n_accuracy", greedy + 0.05)
        add_levels("search_accuracy", greedy + 0.07)
        add_levels("equal_tokens_majority_accuracy", greedy + 0.04)
        for size in (1, 2, 4):
            add("scaling_best", 0.5 + 0.0625 * size, trajectories=size)
            add("scaling_top_majority", 0.5 + 0.03125 * size, trajectories=size)
        add("ppm_pair_accuracy", 0.8125, pairs=500)
        add("ppm_pair_accuracy", 0.75, pairs=300, kind="step")
        add("ppm_pair_accuracy", 0.9, pairs=200, kind="trajectory")
        add("phase_seconds", 33.0, "train", phase="control", seconds=33.0)
        add("phase_seconds", 44.0, "train", phase="evaluate_search", seconds=44.0)
    return lines


def tree(problem_id: str = "sum-7", solved: bool = True) -> Tree:
    """A tree with a right and a wrong answer, a step that failed and a step that attacks the page."""
    problem = Problem(
        id=problem_id,
        question="Ann has 3 < 4 apples & buys 2 & 2.\nHow many?",
        answers=("7",),
        level="3",
        source="word_sums",
    )
    made = Tree(problem, key=1, prompt="prompt", prompt_tokens=(1,))

    def add(parent: int, text: str, value: float, kind: Kind = Kind.STEP, correct: int | None = None, **node) -> int:
        index = made.add(parent, Node(text=text, tokens=(2, 3), kind=kind, **node))
        if correct is not None:
            made.correct[index] = correct
        for above in made.path(index) if kind >= Kind.ANSWER else ():
            made.update(above, value)
        return index

    good = add(ROOT_INDEX, "<code>\n# Step 1: the apples she has\napples = 3\n<end_of_step>", 0, verdict="ok")
    bad = add(ROOT_INDEX, f"<code>\n# Step 1: {HOSTILE}\napples = 4\n<end_of_step>", 0, verdict="ok")
    add(ROOT_INDEX, "<code>\napples = three\n<end_of_step>", -1, Kind.FAILED, verdict="error", error="NameError: three")
    code = "\n# Step 2: add what she buys\nbought = [2, 2]\nprint(apples + sum(bought))\n<end_of_code>"
    right = add(good, f"{code}\n<output>7<end_of_output>", 0, Kind.CODE, verdict="ok", output="7")
    code = "\nprint(apples + 2)\n<end_of_code>"
    wrong = add(good, f"{code}\n<output>5<end_of_output>", 0, Kind.CODE, verdict="ok", output="5")
    other = add(bad, f"\nprint('{HOSTILE}')<end_of_code>", 0, Kind.CODE, verdict="ok", output=HOSTILE + "\ud800")
    if solved:
        add(right, "\n<answer>\\boxed{7}<end_of_answer>", 1, Kind.ANSWER, correct=1, answer="7")
        add(right, "\n<answer>So \\boxed{7.0}<end_of_answer>", 1, Kind.ANSWER, correct=1, answer="7.0")
    add(wrong, "\n<answer>\\boxed{5}<end_of_answer>", -1, Kind.ANSWER, correct=0, answer="5")
    add(other, f"\n<answer>\\boxed{{{HOSTILE}}}<end_of_answer>", -1, Kind.ANSWER, correct=0, answer=HOSTILE)
    return made


def make(folder: pathlib.Path, lines: list[dict] | None = None, rounds: int = 3) -> pathlib.Path:
    """Writes the run folder `folder`/run."""
    run = folder / "run"
    run.mkdir()
    lines = metrics(rounds) if lines is None else lines
    (run / "done").mkdir()
    (run / "done" / "0_all.json").write_text(json.dumps({"rows": lines}), encoding="utf-8")
    (run / "config.gin").write_text('NAME = "<b>bold</b>"\nROUNDS = 4\n', encoding="utf-8")
    for round in range(1, rounds):
        storage.write_shard(run / f"round_{round}" / "trees_1", 0, 1, [tree("a-unsolved", solved=False), tree()])
    return run
