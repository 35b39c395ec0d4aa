"""Procedural problems: reasoning-gym families at four levels, with the worked examples of the bootstrap.

Each family is chosen so that a right answer means a right program: no zero terms, no factors of one, no animals
without legs. A worked example carries one operation a step, so that a step can be right or wrong by itself. Writing
them is what the 236B model does in round 1 of the paper (section 3.3); here a few lines of template do it.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import re
import string
import sys
import types
import warnings
from collections.abc import Callable, Iterator

from rstar_jax.problems.problem import Problem
from rstar_jax.trajectory import markers, steps

LEVELS = (1, 2, 3, 4)

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of problem.

    dataset: its name in reasoning-gym. levels: the generator's arguments, one dict a level.
    operations: the right-hand sides of a worked example's steps; "{i}" stands for the result of step i.
    admissible: whether a right answer to the question means a right program.
    """

    dataset: str
    levels: tuple[dict, ...]
    operations: Callable[[str], list[str]]
    admissible: Callable[[str], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProceduralProblems:
    """Which problems a run is made of.

    families: names of FAMILIES. bootstrap: worked examples a family at levels 1 to 4: many easy ones and a thin tail of
    harder ones, without which a policy never writes more steps than it has seen. rounds: for each round, problems a
    family at levels 1 to 4; their answers are the only labels. heldout: problems a family and level, never trained on.
    """

    families: tuple[str, ...]
    bootstrap: tuple[int, ...]
    rounds: tuple[tuple[int, ...], ...]
    heldout: int

    def __post_init__(self):
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown:
            raise ValueError(f"ProceduralProblems.families: {unknown[0]!r} is not one of {', '.join(FAMILIES)}")
        for counts in (self.bootstrap, *self.rounds):
            if len(counts) != len(LEVELS):
                raise ValueError(f"ProceduralProblems: expected {len(LEVELS)} counts, one a level, got {counts}")


def _expression_operations(expression: str) -> list[str]:
    """One operation a step, in the order in which Python evaluates `expression`."""
    operations: list[str] = []

    def visit(node: ast.expr) -> str:
        if isinstance(node, ast.BinOp):
            left, right = visit(node.left), visit(node.right)
            operations.append(f"{left} {_OPERATORS[type(node.op)]} {right}")
            return f"{{{len(operations) - 1}}}"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            operand = visit(node.operand)
            if not operand.startswith("{"):
                return f"-{operand}"
            operations.append(f"0 - {operand}")
            return f"{{{len(operations) - 1}}}"
        if isinstance(node, ast.Constant):
            return str(node.value)
        raise ValueError(f"{expression!r}: expected sums, differences and products of integers")

    visit(ast.parse(expression, mode="eval").body)
    return operations


def _sum_expression(question: str) -> str:
    return question.split("problem:")[1].rstrip("= ").strip()


def _calculate_expression(question: str) -> str:
    return question.removeprefix("Calculate").strip().rstrip(".")


def _no_zero(question: str) -> bool:
    return not re.search(r"\b0+\b", question)


def _no_unit(question: str) -> bool:
    return not re.search(r"\b[01]\b", question)


def _animals(question: str) -> list[tuple[int, str]]:
    listing = question.split("if you have")[1]
    return [(int(count), name) for count, name in re.findall(r"(\d+) ([a-z ]+?)(?=[,?])", listing)]


def _legs(name: str) -> int:
    _reasoning_gym()
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return ANIMALS[name] if name in ANIMALS else ANIMALS[name.removesuffix("s")]


def _leg_operations(question: str) -> list[str]:
    operations = []
    for i, (count, name) in enumerate(_animals(question)):
        carried = f"{{{i - 1}}} + " if i else ""
        operations.append(f"{carried}{count} * {_legs(name)}")
    return operations


FAMILIES = {
    "chain_sum": Family(
        dataset="chain_sum",
        levels=tuple(
            dict(min_terms=low, max_terms=high, min_digits=1, max_digits=2)
            for low, high in ((2, 4), (5, 5), (6, 6), (7, 7))
        ),
        operations=lambda question: _expression_operations(_sum_expression(question)),
        admissible=_no_zero,
    ),
    "basic_arithmetic": Family(
        dataset="basic_arithmetic",
        levels=tuple(
            dict(
                min_terms=low,
                max_terms=high,
                min_digits=1,
                max_digits=2,
                operators=["+", "-", "*"],
                allow_negation=False,
            )
            for low, high in ((2, 3), (4, 4), (5, 5), (6, 6))
        ),
        operations=lambda question: _expression_operations(_calculate_expression(question)),
        admissible=_no_unit,
    ),
    "leg_counting": Family(
        dataset="leg_counting",
        levels=tuple(
            dict(min_animals=low, max_animals=high, min_instances=2, max_instances=15)
            for low, high in ((2, 3), (4, 4), (5, 5), (6, 6))
        ),
        operations=_leg_operations,
        admissible=lambda question: all(_legs(name) for _, name in _animals(question)),
    ),
}


def _reasoning_gym() -> types.ModuleType:
    """Imports reasoning-gym, whose own dependencies warn, or are missing where there is no C compiler."""
    if importlib.util.find_spec("pycosat") is None:
        sys.modules.setdefault("pycosat", types.ModuleType("pycosat"))  # serves one puzzle that is none of ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import reasoning_gym
    return reasoning_gym


def generate(
    family: str, level: int, count: int, *, split: str, seed: int, avoid: set[str] | None = None
) -> Iterator[Problem]:
    """`count` distinct problems of one family and level, none of them in `avoid`, which grows by their questions.

    The generator's seed is hashed from all arguments: neighbouring seeds of reasoning-gym give overlapping problems.
    """
    reasoning_gym = _reasoning_gym()
    kind = FAMILIES[family]
    key = hashlib.sha256(f"{split}/{family}/{level}/{seed}".encode()).digest()
    source = reasoning_gym.create_dataset(
        kind.dataset, size=20 * count + 100, seed=int.from_bytes(key[:4]) >> 1, **kind.levels[level - 1]
    )
    seen = set() if avoid is None else avoid
    found = 0
    for index in range(len(source)):
        if found == count:
            return
        item = source[index]
        question = item["question"].strip()
        if question in seen or not kind.admissible(question):
            continue
        yield Problem(
            id=f"{split}/{family}/{level}/{found:05d}",
            question=question,
            answer=str(item["answer"]),
            level=level,
            family=family,
        )
        seen.add(question)
        found += 1
    if found < count:
        raise ValueError(f"{family}, level {level}: only {found} distinct problems, {count} were asked for")


def worked_program(problem: Problem) -> list[str]:
    """The lines of a right program: one operation a line, the last one prints the answer."""
    operations = FAMILIES[problem.family].operations(problem.question)
    names = list(string.ascii_lowercase[: len(operations)])
    lines = [f"{name} = {operation.format(*names)}" for name, operation in zip(names, operations, strict=True)]
    return lines + [f"print({names[-1]})"]


def worked_example(problem: Problem) -> str:
    """A whole trajectory, from `<code>` to `<end_of_answer>`, as the bootstrap learns it."""
    *lines, last = worked_program(problem)
    code = "".join(f"{line}{markers.END_OF_STEP}" for line in lines)
    text = f"{markers.CODE}{code}{last}{markers.END_OF_CODE}"
    return steps.with_output(text, problem.answer) + steps.boxed(problem.answer)
