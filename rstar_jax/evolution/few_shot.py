"""`rstar evaluate --model=...`: greedy accuracy of a checkpoint, few-shot, with its programs run."""

import json
from collections.abc import Callable

from etils import epath
from rich.table import Table

from rstar_jax import configuration, files, models
from rstar_jax.decoding import Engine
from rstar_jax.evaluation import ModelEvaluation, grade_answers
from rstar_jax.evolution import progress
from rstar_jax.partitioning import make_mesh
from rstar_jax.problems import named
from rstar_jax.search import sample_solutions
from rstar_jax.trajectory import steps
from rstar_jax.verifier import Grader, Verifier


def prompt_after(file: str | None) -> Callable[[str], str]:
    """What makes the prompt of a question: the text of `file`, found as gin files are, stands before it.

    Raises: FileNotFoundError.
    """
    if file is None:
        return steps.prompt
    preamble = configuration.find(file).read_text()
    return lambda question: preamble + steps.prompt(question) + "\n"


def evaluate_model(*, config: ModelEvaluation, model: str, problems: str | None, output: str | None) -> None:
    """Accuracy on problems with answers, and how many programs ran: a table, and a JSON line a problem in `output`."""
    if problems is None:
        raise ValueError("--problems: expected a file, a folder, or the name of a set of problems")
    asked = named.find(problems).read()
    mesh = make_mesh(config.mesh)
    policy = models.load(model, mesh, config.dtype)
    if policy.tokenizer is None:
        raise FileNotFoundError(f"--model={model}: expected a tokenizer.json there")
    with Verifier(limits=config.limits, workers=config.verifier_workers) as verifier, Grader() as grader:
        solutions = sample_solutions(
            asked,
            1,
            sampler=Engine(policy.config, policy.tokenizer, mesh, config.decoding, policy=policy.parameters),
            verifier=verifier,
            max_prefix_tokens=config.decoding.max_prefix_tokens,
            seed=0,
            prompt=prompt_after(config.few_shot),
        )
        solved = [solution for (solution,) in solutions]
        right = grade_answers([problem.answers for problem in asked], [own.answer for own in solved], grader)
    ran = [own.ran for own in solved]
    answered = [own.answer is not None for own in solved]
    table = Table("problems", "accuracy", "programs that ran", "answers", title=f"{epath.Path(model).name}, greedy")
    table.add_row(str(len(asked)), f"{sum(right) / len(asked):.3f}", str(sum(ran)), str(sum(answered)))
    progress.output.print(table)
    if output is not None:
        rows = [
            {"id": problem.id, "answer": own.answer, "right": bool(value), "ran": own.ran, "text": own.text}
            for problem, own, value in zip(asked, solved, right, strict=True)
        ]
        files.publish(epath.Path(output), "".join(json.dumps(row) + "\n" for row in rows))
