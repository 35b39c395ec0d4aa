"""A small run folder: numbers of three rounds and a tree or two of each, made by hand."""

import json
import pathlib

from rstar_jax.problems.problem import Problem
from rstar_jax.search import storage
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree

HOSTILE = "<script>alert('step')</script>"
LEVELS = (2, 3, 4, 5)


def metrics(rounds: int = 3) -> list[dict]:
    """What a run writes: every name, means and levels, losses, seconds."""
    lines = []
    for round in range(rounds):
        add = lambda name, value, split="heldout", round=round, **more: lines.append(  # noqa: E731
            {"round": round, "name": name, "value": value, "split": split, **more}
        )
        greedy = 0.125 + 0.1875 * round
        add("greedy_accuracy", greedy, seconds=4.5)
        add("control_greedy_accuracy", 0.125 + 0.05 * round)
        add("majority_accuracy", min(1, greedy + 0.08))
        add("pass_at_8", min(1, greedy + 0.3))
        for level in LEVELS:
            add("greedy_accuracy", max(0, min(1, greedy + 0.1 * (3 - level))), level=level)
            add("control_greedy_accuracy", max(0, 0.2 + 0.05 * round - 0.05 * level), level=level)
        for step in range(0, 200, 5):
            add("policy_loss", 2.0 / (1 + 0.05 * step) / (1 + round), split="train", step=step)
        for index, phase in enumerate(("search", "select", "train_policy", "train_ppm", "evaluate")):
            if round or index > 1:
                add("phase_seconds", 10.0 + 7 * index + 30 * round * (index == 0), split="train", phase=phase)
        if round:
            add("search_accuracy", min(1, greedy + 0.2))
            add("ppm_pair_accuracy", 0.7 + 0.05 * round)
            add("false_positive_share", 0.04 / round, split="train")
            add("solved_share", 0.4 + 0.15 * round, split="train")
            for level in LEVELS:
                add("search_accuracy", max(0, min(1, greedy + 0.2 + 0.1 * (3 - level))), level=level)
            for step in range(0, 100, 5):
                add("ppm_loss", 0.69 / (1 + 0.03 * step * round), split="train", step=step)
    return lines


def tree(problem_id: str = "sum-7", solved: bool = True) -> Tree:
    """A tree with a right and a wrong answer, a step that failed and a step that attacks the page."""
    problem = Problem(
        id=problem_id, question="Ann has 3 < 4 apples & buys 2 & 2.\nHow many?", answer="7", level=3, family="word_sums"
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
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (run / "config.gin").write_text('NAME = "<b>bold</b>"\nROUNDS = 4\n', encoding="utf-8")
    for round in range(1, rounds):
        storage.write_shard(run / f"round_{round}" / "trees", 0, 1, [tree("a-unsolved", solved=False), tree()])
    return run
