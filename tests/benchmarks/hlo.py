"""What a compiled TPU program moves to and from HBM, read from its optimised HLO text.

`Compiled.cost_analysis()` counts the body of a loop once, however often it runs. Here every instruction counts the
bytes that it reads from HBM and writes there, padding included, times the trips of the loops around it. It is taken to
read an operand once, and of one that it slices or gathers from, what it takes out; an update in place moves the update.
What lies in another memory (VMEM, SMEM) counts nothing.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "opt-barrier")
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)(?:, (.*)|)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")


class Array(NamedTuple):
    """The room that an array takes, padding included, and whether that is in HBM."""

    bytes: int
    in_hbm: bool


class Instruction(NamedTuple):
    """One line of a computation. Its arguments are names of others, a constant's value or a parameter's number."""

    name: str
    opcode: str
    root: bool
    results: tuple[Array, ...]
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.arguments)

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.results)

    def attribute(self, name: str) -> str:
        """An attribute's value, such as `body`, a computation, or `op_name`, the place in the traced function."""
        found = re.search(rf'\b{name}=%?("[^"]*"|[\w.-]+)', self.attributes)
        return found[1].strip('"') if found else ""


class Move(NamedTuple):
    """An instruction, how often it runs, and the bytes that it moves to and from HBM in all of those times."""

    instruction: Instruction
    times: int
    bytes: int


Computation = dict[str, Instruction]
Program = dict[str, Computation]


def parse(text: str) -> Program:
    """The computations of a program by name, each its instructions by name."""
    program: Program = {}
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if header := _HEADER.match(line):
            computation = program[header[1]] = {}
        elif found := _INSTRUCTION.match(line):
            root, name, results, opcode, arguments, attributes = found.groups(default="")
            arrays = tuple(_array(*array) for array in _ARRAY.findall(results))
            computation[name] = Instruction(name, opcode, bool(root), arrays, arguments, attributes)
    return program


def _array(dtype: str, shape: str, layout: str) -> Array:
    """bf16[256,7]{1,0:T(8,128)(2,1)S(1)}: axes, the minor one first; tiles, of tiles; a memory, which is not HBM."""
    order, _, rest = layout.partition(":")
    sizes, order = _integers(shape), _integers(order)
    sizes = [sizes[axis] for axis in reversed(order)] if order else sizes
    if tiles := re.match(r"T\(([\d,]+)\)", rest):
        tile = _integers(tiles[1])
        sizes = [1] * (len(tile) - len(sizes)) + sizes
        sizes[-len(tile) :] = [-(-size // unit) * unit for size, unit in zip(sizes[-len(tile) :], tile, strict=True)]
    bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or ["0"])[0])  # a token has none
    return Array(math.prod(sizes) * bits // 8, "S(" not in rest)


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def instructions(program: Program, *opcodes: str) -> list[Instruction]:
    """All instructions with one of these opcodes, or with the -start or -done of one."""
    every = (instruction for computation in program.values() for instruction in computation.values())
    return [instruction for instruction in every if re.sub("-(start|done)$", "", instruction.opcode) in opcodes]


def trips(program: Program, loop: Instruction) -> int | None:
    """How often a `while` runs its body: what XLA notes, or else the bound of its counter, which goes up from 0 by 1.

    None where more than a counter decides.
    """
    if known := re.search(r"known_trip_count\D*(\d+)", loop.attributes):
        return int(known[1])
    condition = program[loop.attribute("condition")]
    within = {**condition, **program.get(_root(condition).attribute("calls"), {})}
    bounds = [i.arguments for i in within.values() if i.opcode == "constant" and i.arguments.isdigit()]
    compares = [i for i in within.values() if i.opcode in ("compare", "and", "or")]
    if len(bounds) != 1 or len(compares) != 1 or compares[0].attribute("direction") != "LT":
        return None
    return int(bounds[0])


def iteration(program: Program) -> list[Move]:
    """What one trip moves of the one loop whose trips are not known; largest first."""
    found = [loop for loop in instructions(program, "while") if trips(program, loop) is None]
    if len(found) != 1:
        raise ValueError(f"expected one loop whose trips are not known, found {[loop.name for loop in found]}")
    moves = [move for part in ("body", "condition") for move in _moves(program, found[0].attribute(part), 1)]
    return sorted(moves, key=lambda move: move.bytes, reverse=True)


def once(program: Program) -> list[Move]:
    """What a program moves outside of that loop, largest first."""
    entry = list(program)[-1]  # XLA writes callers after what they call
    return sorted(_moves(program, entry, 1), key=lambda move: move.bytes, reverse=True)


def collectives(moves: Iterable[Move]) -> dict[str, tuple[int, int]]:
    """(how often, bytes of the results) by opcode."""
    totals: dict[str, tuple[int, int]] = {}
    for instruction, times, _ in moves:
        opcode = instruction.opcode.removesuffix("-done")
        if opcode in COLLECTIVES:
            before = totals.get(opcode, (0, 0))
            totals[opcode] = before[0] + times, before[1] + times * instruction.bytes
    return totals


def _moves(program: Program, name: str, times: int) -> Iterator[Move]:
    """What a computation moves that runs so many times. A loop whose trips are not known counts nothing."""
    for instruction in program[name].values():
        if instruction.opcode == "while":
            for part in ("body", "condition"):
                yield from _moves(program, instruction.attribute(part), times * (trips(program, instruction) or 0))
        elif instruction.opcode in ("call", "conditional"):
            raise NotImplementedError(f"{instruction.name} in {name}: what a {instruction.opcode} moves")
        else:
            yield Move(instruction, times, times * _bytes(program, program[name], instruction))


def _bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    """What one instruction reads from HBM and writes there. Asynchronous ones count where they are done."""
    opcode, target = instruction.opcode, instruction.attribute("custom_call_target")
    if opcode in _FREE or opcode.endswith("-start") or target in _FREE_CALLS:
        return 0
    done = opcode.endswith("-done")
    source = computation[instruction.operands[0]] if done else instruction
    total = _written(program, computation, instruction)
    for index, operand in enumerate(source.operands):
        size = sum(array.bytes for array in computation[operand].results if array.in_hbm)
        total += _read(program, source, index, min(size, instruction.bytes) if done else size)
    return total


def _read(program: Program, instruction: Instruction, index: int, size: int) -> int:
    """What an instruction reads of its operand number `index`, of `size` bytes."""
    if instruction.opcode in ("slice", "dynamic-slice", "gather") and index == 0:
        return min(size, instruction.bytes)
    if instruction.opcode == "dynamic-update-slice" and index == 0:
        return 0
    if instruction.opcode == "fusion":
        body = program[instruction.attribute("calls")]
        own = next(i for i in body.values() if i.opcode == "parameter" and i.arguments == str(index))
        return _read_within(program, body, own, size)
    return size


def _read_within(program: Program, body: Computation, value: Instruction, size: int) -> int:
    """What the instructions of a fusion read of a value from outside, of `size` bytes."""
    total = size if value.root else 0
    for user in body.values():
        for index in (i for i, operand in enumerate(user.operands) if operand == value.name):
            through = user.opcode == "bitcast"
            total += _read_within(program, body, user, size) if through else _read(program, user, index, size)
    return min(total, size)


def _written(program: Program, computation: Computation, instruction: Instruction) -> int:
    """What an instruction writes to HBM."""
    makers = [instruction] * len(instruction.results)
    if instruction.opcode == "fusion":
        computation = program[instruction.attribute("calls")]
        root = _root(computation)
        makers = [computation[name] for name in root.operands] if root.opcode == "tuple" else [root] * len(makers)
    total = 0
    for array, maker in zip(instruction.results, makers, strict=True):
        while maker.opcode == "bitcast":
            maker = computation[maker.operands[0]]
        updates = maker.opcode == "dynamic-update-slice"
        size = computation[maker.operands[1]].bytes if updates else array.bytes
        total += size if array.in_hbm else 0
    return total


def _root(computation: Computation) -> Instruction:
    return next(instruction for instruction in computation.values() if instruction.root)
