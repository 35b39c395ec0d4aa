"""What an answer may be. Values are compared by `equality`, never with `==`."""

from dataclasses import dataclass
from typing import Any

import sympy

from .units import Unit


@dataclass(frozen=True)
class Expression:
    """A number, formula or matrix. decimal: as it was written, where it is a decimal numeral and nothing else."""

    value: Any
    decimal: str | None = None
    unit: Unit | None = None


@dataclass(frozen=True)
class Words:
    """Text: lower-case words without punctuation; a letter alone keeps its case."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Bracketed:
    """A tuple, an interval or a pair in brackets: in this order."""

    left: str
    right: str
    items: tuple


@dataclass(frozen=True)
class Listing:
    """Several values in any order. braces: whether it is written as a set. name: of the variable, if one was named."""

    items: tuple
    braces: bool = False
    name: str | None = None
    european: str | None = None


@dataclass(frozen=True)
class Piece:
    """The reals between two ends."""

    low: sympy.Expr
    low_open: bool
    high: sympy.Expr
    high_open: bool


@dataclass(frozen=True)
class RealSet:
    """A union of pieces. name: of the variable, where it was written as an inequality."""

    pieces: tuple[Piece, ...]
    name: str | None = None


@dataclass(frozen=True)
class Named:
    """A set that has a name: Z, N, Q, C."""

    name: str


@dataclass(frozen=True)
class Relation:
    """sides[0] operators[0] sides[1] ... ; the sides are expressions. domain: the tokens of a trailing "for all"."""

    sides: tuple
    operators: tuple[str, ...]
    domain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """A lone name and its value: `x = 5`, `f(x) = x + 1`. argument: of the function, if it is one."""

    name: str
    value: Any
    argument: str | None = None
    domain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """a : b : c. clock: hours and minutes, if it could be a time as well."""

    parts: tuple[sympy.Expr, ...]
    clock: tuple[int, int] | None = None
    half: str | None = None


@dataclass(frozen=True)
class Residue:
    """A remainder and its modulus; name: of what has it."""

    value: sympy.Expr
    modulus: sympy.Expr
    name: str | None = None


@dataclass(frozen=True)
class Numeral:
    """Digits in a base that is not ten, or written with it."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ambiguous:
    """Two ways to read one text."""

    readings: tuple
