"""Number sequences: which rule makes each term from those before it?

A rule is a chain of a few operations on the whole sequence. The constant that is added at its end is not guessed but
fitted to the last two terms, so that what has to be found is the form of the rule. Finding it is hard, and checking it
is one comparison: does the rule give the terms that are there?
"""

import random
import string

_OPERATIONS = ("* 2", "// 2", "previous", "* 3")
_LAST = ("shift", *_OPERATIONS)
_LARGEST = 999
_LEAST_COMPARED = 3  # terms that a rule must give right
_LEAST_DISTINCT = 4


def terms(question: str) -> list[int]:
    """The terms of "3, 7, 15, 31, ?"."""
    return [int(term) for term in question.removesuffix(", ?").split(", ")]


def rule(sequence: list[int], most: int) -> tuple[str, ...] | None:
    """The shortest chain of operations, the first of equally short ones, that gives the sequence; None above `most`."""
    for length in range(1, most + 1):
        found = _search(sequence, sequence, length)
        if found:
            return found
    return None


def continued(sequence: list[int], operations: tuple[str, ...]) -> int:
    """The term that follows by a rule."""
    values = sequence
    for operation in operations:
        values = _apply(operation, values, sequence)
    return values[-1]


def admissible(question: str, answer: str, level: int) -> bool:
    """Whether the rule has as many operations as the level says, and the terms are varied enough to show it."""
    sequence = terms(question)
    if len(set(sequence)) < _LEAST_DISTINCT or max(map(abs, sequence)) > _LARGEST:
        return False
    found = rule(sequence, level)
    return found is not None and len(found) == level and continued(sequence, found) == int(answer)


def program(question: str) -> list[str]:
    """One operation a line; the last one prints the next term and how many of the others the rule gets wrong.

    After `previous`, values are one fewer, so sequences are compared from their ends.
    """
    sequence = terms(question)
    lines, values = [f"s = {sequence}"], "s"
    for name, operation in zip(string.ascii_lowercase, rule(sequence, len(sequence)) or (), strict=False):
        if operation == "previous":
            lines.append(f"{name} = [x + y for x, y in zip({values}[1:], s[-len({values}):])]")
        elif operation == "shift":
            lines.append(f"{name} = [x + s[-1] - {values}[-2] for x in {values}]")
        else:
            lines.append(f"{name} = [x {operation} for x in {values}]")
        values = name
    return [*lines, f"print({values}[-1], sum(x != y for x, y in zip({values}[-2::-1], s[::-1])))"]


def fresh(code: str, question: str, draw: int) -> str:
    """`code` with the terms of the question replaced by others that follow the same rule."""
    sequence = terms(question)
    operations = rule(sequence, len(sequence)) or ()
    generator = random.Random(f"{question}/{draw}")
    other = [generator.randrange(10**5, 10**6)]
    offset = generator.randrange(10**5, 10**6)
    while len(other) < len(sequence):
        other.append(_next(other, operations, offset))
    return code.replace(str(sequence), str(other))


def _search(values: list[int], sequence: list[int], length: int) -> tuple[str, ...] | None:
    for operation in _LAST if length == 1 else _OPERATIONS:
        after = _apply(operation, values, sequence)
        if len(after) <= _LEAST_COMPARED:
            continue
        if length == 1:
            if after[:-1] == sequence[1 - len(after) :]:
                return (operation,)
        elif rest := _search(after, sequence, length - 1):
            return operation, *rest
    return None


def _apply(operation: str, values: list[int], sequence: list[int]) -> list[int]:
    match operation:
        case "* 2":
            return [x * 2 for x in values]
        case "* 3":
            return [x * 3 for x in values]
        case "// 2":
            return [x // 2 for x in values]
        case "previous":
            return [x + y for x, y in zip(values[1:], sequence[-len(values) :], strict=False)]
        case "shift":
            offset = sequence[-1] - values[-2]
            return [x + offset for x in values]
    raise ValueError(f"{operation!r} is no operation of a sequence")


def _next(sequence: list[int], operations: tuple[str, ...], offset: int) -> int:
    """The next term by a rule whose shift is `offset`; nothing comes before the first term."""
    value = sequence[-1]
    for operation in operations:
        if operation == "previous":
            value += sequence[-2] if len(sequence) > 1 else 0
        elif operation == "shift":
            value += offset
        else:
            value = _apply(operation, [value], sequence)[0]
    return value
