"""Number sequences: which rule makes each term from those before it?

A rule is a chain of a few operations on the whole sequence. The constant that is added at its end is not guessed but
fitted to the last two terms, so that what has to be found is the form of the rule. Finding it is hard, and checking it
is one comparison: does the rule give the terms that are there?
"""

import functools
import itertools
import random
import string

_OPERATIONS = ("* 2", "// 2", "previous", "* 3")
_LAST = ("shift", *_OPERATIONS)
_LARGEST = 300  # numbers are copied digit by digit: what is to be learned is the rule
_LEAST_COMPARED = 3  # terms that a rule must give right
_LEAST_DISTINCT = 4
_MOST_LUCKY = 1


def terms(question: str) -> list[int]:
    """The terms of "3, 7, 15, 31, ?"."""
    return [int(term) for term in question.removesuffix(", ?").split(", ")]


def rule(sequence: list[int], most: int) -> tuple[str, ...] | None:
    """The shortest chain of operations, the first of equally short ones, that gives the sequence; None above `most`."""
    return next((operations for operations in _chains(most) if _fits(sequence, operations)), None)


def continued(sequence: list[int], operations: tuple[str, ...]) -> int | None:
    """The term that follows by a chain of operations; None if nothing is left of the sequence."""
    values = _values(sequence, operations)
    return values[-1] if values else None


def admissible(question: str, answer: str, level: int) -> bool:
    """Whether the rule has as many operations as the level says, and a right answer means that it was found.

    Many sequences, such as those that settle, go on as they should by rules that do not fit them. They are left out.
    """
    sequence, following = terms(question), int(answer)
    if len(set(sequence)) < _LEAST_DISTINCT or max(map(abs, [*sequence, following])) > _LARGEST:
        return False
    found = rule(sequence, level)
    if found is None or len(found) != level or continued(sequence, found) != following:
        return False
    lucky = [chain for chain in _chains(3) if continued(sequence, chain) == following and not _fits(sequence, chain)]
    return len(lucky) <= _MOST_LUCKY


def program(question: str) -> list[str]:
    """One operation a line; the last one prints the next term and how many of the others the rule gets wrong.

    After `previous`, values are one fewer, so sequences are compared from their ends.
    """
    sequence = terms(question)
    lines, values = [f"s = {sequence}"], "s"
    for name, operation in zip(string.ascii_lowercase, _rule_of(sequence), strict=False):
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
    operations = _rule_of(sequence)
    generator = random.Random(f"{question}/{draw}")
    other = [generator.randrange(10**5, 10**6)]
    offset = generator.randrange(10**5, 10**6)
    while len(other) < len(sequence):
        other.append(_next(other, operations, offset))
    return code.replace(str(sequence), str(other))


def _rule_of(sequence: list[int]) -> tuple[str, ...]:
    """The rule of a sequence that has one, of as many operations as there are levels."""
    found = rule(sequence, 4)
    if found is None:
        raise ValueError(f"{sequence}: expected a sequence with a rule of at most four operations")
    return found


@functools.cache
def _chains(most: int) -> tuple[tuple[str, ...], ...]:
    """All chains of at most so many operations, short ones first; a shift stands last, where it is fitted."""
    return tuple(
        (*before, last)
        for length in range(most)
        for before in itertools.product(_OPERATIONS, repeat=length)
        for last in _LAST
    )


def _values(sequence: list[int], operations: tuple[str, ...]) -> list[int]:
    values = sequence
    for operation in operations:
        if len(values) < 2:
            return []
        values = _apply(operation, values, sequence)
    return values


def _fits(sequence: list[int], operations: tuple[str, ...]) -> bool:
    values = _values(sequence, operations)
    return len(values) > _LEAST_COMPARED and values[:-1] == sequence[1 - len(values) :]


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
