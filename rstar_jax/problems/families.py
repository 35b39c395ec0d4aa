"""The families of procedural problems: which questions are asked, and how each is solved, one operation a step.

A preference model needs something to read. Every program ends by printing an error beside its result: how far a sum is
from the whole expression, how many terms a rule gets wrong, how many people are left at no table.
"""

import ast
import dataclasses
import functools
import importlib.util
import random
import re
import string
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rstar_jax.problems import sequences, shortcuts

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_LITERAL = re.compile(r"\b\d+\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of problem.

    items: (seed, size, **arguments of a level) -> the (question, answer) of so many problems.
    levels: these arguments, one dict a level; levels count from 1.
    admissible: (question, answer, level) -> whether it is of this level, and a right answer means a right program.
    program: the lines that solve a question, one operation a line; the last one prints the answer, then 0.
    fresh: (code, question, draw) -> the code with other numbers, under which a right program stays right.
    """

    items: Callable[..., Iterator[tuple[str, str]]]
    levels: tuple[dict, ...]
    admissible: Callable[[str, str, int], bool]
    program: Callable[[str], list[str]]
    fresh: Callable[[str, str, int], str]


def reasoning_gym() -> types.ModuleType:
    """Imports reasoning-gym, whose own dependencies warn, or are missing where there is no C compiler."""
    if importlib.util.find_spec("pycosat") is None:
        sys.modules.setdefault("pycosat", types.ModuleType("pycosat"))  # serves one puzzle that is none of ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import reasoning_gym
    return reasoning_gym


def _of_reasoning_gym(name: str, seed: int, size: int, **arguments: Any) -> Iterator[tuple[str, str]]:
    """`Family.items` of a data set of reasoning-gym."""
    source = reasoning_gym().create_dataset(name, size=size, seed=seed, **arguments)
    for index in range(size):  # its own iterator makes an item twice
        item = source[index]
        yield item["question"].strip(), str(item["answer"])


def _solve(expression: str) -> list[str]:
    """One operation a line, in the order in which Python evaluates `expression`."""
    lines: list[str] = []

    def assign(operation: str) -> str:
        name = string.ascii_lowercase[len(lines)]
        lines.append(f"{name} = {operation}")
        return name

    def visit(node: ast.expr) -> str:
        match node:
            case ast.BinOp(left=left, op=operator, right=right):
                first, second = visit(left), visit(right)
                return assign(f"{first} {_OPERATORS[type(operator)]} {second}")
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)):
                return f"-{value}"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return assign(f"0 - {visit(operand)}")
            case ast.Constant(value=value):
                return str(value)
        raise ValueError(f"{expression!r}: expected sums, differences and products of integers")

    result = visit(ast.parse(expression, mode="eval").body)
    return [*lines, _checked(result, expression)]


def _checked(name: str, expression: str) -> str:
    return f"print({name}, {name} - ({expression}))"


def _fresh_literals(code: str, question: str, draw: int) -> str:
    """Every integer replaced by another: equal ones by equal ones, different ones by different ones."""
    del question
    return _LITERAL.sub(lambda match: str(random.Random(f"{match.group()}/{draw}").randrange(10**5, 10**6)), code)


def _sum_expression(question: str) -> str:
    return question.split("problem:")[1].rstrip("= ").strip()


def _calculate_expression(question: str) -> str:
    return question.removeprefix("Calculate").strip().rstrip(".")


def _no_zero(question: str, answer: str, level: int) -> bool:
    del answer, level
    return not re.search(r"\b0+\b", question)


def _no_unit(question: str, answer: str, level: int) -> bool:
    del answer, level
    return not re.search(r"\b[01]\b", question)


def _animals(question: str) -> list[tuple[int, int]]:
    """(how many, legs of one) for each kind of animal."""
    listing = question.split("if you have")[1]
    return [(int(count), _legs(name)) for count, name in re.findall(r"(\d+) ([a-z ]+?)(?=[,?])", listing)]


@functools.cache
def _legs(name: str) -> int:
    reasoning_gym()
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return ANIMALS[name] if name in ANIMALS else ANIMALS[name.removesuffix("s")]


def _all_have_legs(question: str, answer: str, level: int) -> bool:
    del answer, level
    return all(legs for _, legs in _animals(question))


def _count_legs(question: str) -> list[str]:
    products = [f"{count} * {legs}" for count, legs in _animals(question)]
    names = string.ascii_lowercase[: len(products)]
    carried = ["", *(f"{name} + " for name in names)]
    lines = [f"{name} = {before}{product}" for name, before, product in zip(names, carried, products, strict=False)]
    return [*lines, _checked(names[-1], " + ".join(products))]


FAMILIES = {
    "chain_sum": Family(
        items=functools.partial(_of_reasoning_gym, "chain_sum"),
        levels=tuple(
            dict(min_terms=low, max_terms=high, min_digits=1, max_digits=2)
            for low, high in ((2, 4), (5, 5), (6, 6), (7, 7))
        ),
        admissible=_no_zero,
        program=lambda question: _solve(_sum_expression(question)),
        fresh=_fresh_literals,
    ),
    "basic_arithmetic": Family(
        items=functools.partial(_of_reasoning_gym, "basic_arithmetic"),
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
        admissible=_no_unit,
        program=lambda question: _solve(_calculate_expression(question)),
        fresh=_fresh_literals,
    ),
    "leg_counting": Family(
        items=functools.partial(_of_reasoning_gym, "leg_counting"),
        levels=tuple(
            dict(min_animals=low, max_animals=high, min_instances=2, max_instances=15)
            for low, high in ((2, 3), (4, 4), (5, 5), (6, 6))
        ),
        admissible=_all_have_legs,
        program=_count_legs,
        fresh=_fresh_literals,
    ),
    "number_sequence": Family(
        items=functools.partial(_of_reasoning_gym, "number_sequence"),
        levels=tuple(dict(min_terms=5, max_terms=5, max_complexity=most) for most in (1, 1, 3, 3)),
        admissible=sequences.admissible,
        program=sequences.program,
        fresh=sequences.fresh,
    ),
    "shortcuts": Family(
        items=shortcuts.items,
        levels=(dict(failing=0, tables=0.0), *(dict(failing=kinds, tables=0.6) for kinds in range(5))),
        admissible=lambda question, answer, level: True,
        program=shortcuts.program,
        fresh=shortcuts.fresh,
    ),
}
