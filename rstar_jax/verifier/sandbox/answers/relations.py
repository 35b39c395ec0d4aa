"""What stands on the sides of equations and inequalities, and which reals an inequality leaves."""

import sympy

from . import algebra, cutting, expressions, sets
from .tokens import Token
from .values import Expression, RealSet


def agree(values: list) -> bool:
    """Whether all are known to be the same."""
    if len(values) == 1:
        return True
    if not all(isinstance(value, Expression) and value.unit is None for value in values):
        return False
    return all(algebra.equal(values[0].value, value.value) is True for value in values[1:])


def proportional(one, other) -> bool:
    """Whether nothing but a number stands between two sides: products of letters that are points, or an identity."""
    return other == 0 and one.is_number or other != 0 and (one / other).is_number


def mentions(value, name: str) -> bool:
    """Whether a variable stands in a formula."""
    if not isinstance(value, Expression):
        return False
    return any(symbol.name == name for symbol in value.value.free_symbols)


def defined(side: list[Token]) -> tuple[str | None, str | None]:
    """The name on the left of an equation, and the argument if it is a function's."""
    name = expressions.names_one(side)
    if name is not None:
        return name, None
    if len(side) == 1 and side[0].kind == "text" and len(side[0].text.strip("~ ")) == 1:
        return side[0].text.strip("~ "), None  # upright
    texts = [part.text for part in side]
    if len(side) >= 4 and texts[-1] == ")" and "(" in texts[1:]:
        place = texts.index("(")
        arguments = side[place + 1 : -1]
        if place and all(part.kind == "letter" or part.text == "," for part in arguments):
            name, argument = expressions.names_one(side[:place]), "".join(part.text for part in arguments)
            if name is None or argument == argument.lower():
                return name, argument
            return f"{name}({argument})", None  # of a random variable, and not of a bound one
    if len(side) >= 5 and texts[0] == "(" and texts[-1] == ")":
        pieces, separators = cutting.split(side[1:-1], (",",))
        names = [expressions.names_one(piece) for piece in pieces]
        if separators and None not in names:
            return "(" + ",".join(names) + ")", None
    return None, None


def solved(values: list, operators: list[str], place: int) -> RealSet | None:
    """A chain of inequalities as a set of reals, if it is linear in one variable that stands in one place alone."""
    symbols = set().union(*(value.free_symbols for value in values)) - {expressions.LOG, expressions.DEGREE}
    if len(values) == 2:
        difference = sympy.expand(values[1] - values[0]) if not any(abs(v) == sympy.oo for v in values) else None
        lone = [one for one in values if isinstance(one, sympy.Symbol)]
        if len(lone) == 1:
            symbol = lone[0]
            other = values[1] if values[0] is symbol else values[0]
            if other.has(symbol):
                return None
            below = values[0] is symbol
        elif len(symbols) == 1 and difference is not None:
            symbol = next(iter(symbols))
            if not difference.is_polynomial(symbol) or sympy.degree(difference, symbol) != 1:
                return None
            slope, shift = difference.coeff(symbol, 1), difference.coeff(symbol, 0)
            if not slope.is_number or not slope.is_real:
                return None
            other, below = -shift / slope, bool(slope < 0)  # slope * symbol + shift > 0
        else:
            return None
        if operators[0] == r"\ne":
            if other.free_symbols:
                return None
            return RealSet(sets.without(sets.EVERYTHING, [other]).pieces, symbol.name)
        strict = operators[0] == "<"
        if below:
            return sets.interval(-sympy.oo, True, other, strict, symbol.name)
        return sets.interval(other, strict, sympy.oo, True, symbol.name)
    if (
        len(values) == 3
        and isinstance(values[1], sympy.Symbol)
        and not (values[0].has(values[1]) or values[2].has(values[1]))
    ):
        low, symbol, high = values
        if low.free_symbols or high.free_symbols:
            return None
        return sets.interval(low, operators[0] == "<", high, operators[1] == "<", symbol.name)
    return None
