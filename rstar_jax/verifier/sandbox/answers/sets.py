"""Unions of intervals, and what inequalities say of one variable."""

import functools

import sympy

from . import algebra
from .tokens import Unread
from .values import Piece, RealSet

EVERYTHING = RealSet((Piece(-sympy.oo, True, sympy.oo, True),))


def _compare(one, other) -> int:
    order = algebra.compare_reals(one, other)
    if order is None:
        raise Unread("ends that cannot be ordered")
    return order


def interval(low, low_open: bool, high, high_open: bool, name: str | None = None) -> RealSet:
    """The reals between two ends. Raises Unread if that is none, or the ends cannot be compared."""
    if (low is -sympy.oo and not low_open) or (high is sympy.oo and not high_open):
        raise Unread("infinity is no number of an interval")
    order = _compare(low, high)
    if order > 0 or (order == 0 and (low_open or high_open)):
        raise Unread("an interval without a number")
    return RealSet((Piece(low, low_open, high, high_open),), name)


def point(value) -> Piece:
    """The piece that holds one number."""
    return Piece(value, False, value, False)


def union(sets: list[RealSet]) -> RealSet:
    """Every number that is in one of them. Raises Unread where ends cannot be ordered."""

    def before(one: Piece, other: Piece) -> int:
        return _compare(one.low, other.low) or one.low_open - other.low_open

    pieces = sorted((piece for one in sets for piece in one.pieces), key=functools.cmp_to_key(before))
    joined: list[Piece] = []
    for piece in pieces:
        if joined:
            last = joined[-1]
            order = _compare(piece.low, last.high)
            if order < 0 or (order == 0 and not (piece.low_open and last.high_open)):
                end = _compare(piece.high, last.high)
                if end > 0 or (end == 0 and last.high_open):
                    joined[-1] = Piece(last.low, last.low_open, piece.high, piece.high_open)
                continue
        joined.append(piece)
    return RealSet(tuple(joined), next((one.name for one in sets if one.name), None))


def intersection(sets: list[RealSet]) -> RealSet:
    """Every number that is in all of them. Raises Unread where there is none, or ends cannot be ordered."""
    pieces = sets[0].pieces
    for other in sets[1:]:
        pieces = tuple(shared for one in pieces for two in other.pieces if (shared := _shared(one, two)) is not None)
    if not pieces:
        raise Unread("no number is in all of the sets")
    return RealSet(pieces, next((one.name for one in sets if one.name), None))


def without(whole: RealSet, values: list) -> RealSet:
    """`whole` less single numbers."""
    rest = list(whole.pieces)
    for value in values:
        split: list[Piece] = []
        for piece in rest:
            below, above = _compare(value, piece.low), _compare(value, piece.high)
            if below < 0 or above > 0:
                split.append(piece)
                continue
            if below > 0:
                split.append(Piece(piece.low, piece.low_open, value, True))
            if above < 0:
                split.append(Piece(value, True, piece.high, piece.high_open))
        rest = split
    return RealSet(tuple(rest), whole.name)


def _shared(one: Piece, two: Piece) -> Piece | None:
    low = max((one, two), key=functools.cmp_to_key(lambda a, b: _compare(a.low, b.low) or a.low_open - b.low_open))
    high = min((one, two), key=functools.cmp_to_key(lambda a, b: _compare(a.high, b.high) or b.high_open - a.high_open))
    order = _compare(low.low, high.high)
    if order > 0 or (order == 0 and (low.low_open or high.high_open)):
        return None
    return Piece(low.low, low.low_open, high.high, high.high_open)


def equal(left: RealSet, right: RealSet) -> bool | None:
    """Whether both hold the same numbers."""
    try:
        left, right = union([left]), union([right])
    except Unread:
        pass
    if len(left.pieces) != len(right.pieces):
        return False
    return algebra.all_of(
        algebra.all_of(
            (
                one.low_open == two.low_open and one.high_open == two.high_open,
                algebra.equal(one.low, two.low),
                algebra.equal(one.high, two.high),
            )
        )
        for one, two in zip(left.pieces, right.pieces, strict=True)
    )
