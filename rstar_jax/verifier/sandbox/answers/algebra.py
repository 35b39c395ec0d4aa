"""Whether two formulas are equal: by their form, or by their values at points, to more digits than either could hide.

There is no tolerance. A difference is looked at with a precision that is taken from the sizes of the constants in it,
twice: what vanishes at both is zero, what stays is not.
"""

import random

import mpmath
import sympy

from .expressions import DEGREE, LOG

_MOST_DIGITS = 3_000
_MOST_GAMMAS = 20  # factorials and binomials of variables, which are slow
_SPARE_DIGITS = 20
_FUNCTIONS = {
    sympy.sin: mpmath.sin, sympy.cos: mpmath.cos, sympy.tan: mpmath.tan, sympy.cot: mpmath.cot, sympy.sec: mpmath.sec,
    sympy.csc: mpmath.csc, sympy.asin: mpmath.asin, sympy.acos: mpmath.acos, sympy.atan: mpmath.atan,
    sympy.acot: mpmath.acot, sympy.sinh: mpmath.sinh, sympy.cosh: mpmath.cosh, sympy.tanh: mpmath.tanh,
    sympy.coth: mpmath.coth, sympy.log: mpmath.log, sympy.exp: mpmath.exp, sympy.Abs: abs, sympy.floor: mpmath.floor,
    sympy.ceiling: mpmath.ceil, sympy.factorial: mpmath.factorial, sympy.binomial: mpmath.binomial,
}  # fmt: skip


_STEPS = (sympy.floor, sympy.ceiling, sympy.Max, sympy.Min, sympy.Abs)


class Undefined(ArithmeticError):
    """A formula has no value at a point, or none that can be had."""


def equal(left, right) -> bool | None:
    """Whether two sympy formulas or matrices mean the same; None where that is not known."""
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        if not (isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase)):
            return False
        if left.shape != right.shape:
            return False
        return all_of(equal(one, other) for one, other in zip(left, right, strict=True))
    if left == right:
        return True
    if left.is_Rational and right.is_Rational:
        return False
    if left.has(sympy.oo, -sympy.oo) or right.has(sympy.oo, -sympy.oo):
        return False if left in (sympy.oo, -sympy.oo) or right in (sympy.oo, -sympy.oo) else None
    if left.has(LOG) or right.has(LOG):
        return _whatever_the_base(left, right)
    return _vanishes(*without_functions(left, right))


def all_of(verdicts) -> bool | None:
    """True if all are, False if one is False, else None."""
    result: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def _whatever_the_base(left, right) -> bool | None:
    """A \\log without a base is natural, decimal or binary: only what holds for all of them is known."""
    verdicts = {equal(left.subs(LOG, base), right.subs(LOG, base)) for base in (1, 1 / sympy.log(10), 1 / sympy.log(2))}
    return verdicts.pop() if len(verdicts) == 1 else None


def without_functions(left, right):
    """Functions that have no definition become variables."""
    names = {}
    for formula in (left, right):
        for function in formula.atoms(sympy.core.function.AppliedUndef):
            names.setdefault(function, sympy.Symbol(f"<{function}>"))
    return left.xreplace(names), right.xreplace(names)


def _vanishes(left, right) -> bool | None:
    """Whether left - right is 0 at every point: True if it is at all that were tried, False if it is at none."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda symbol: symbol.name)
    digits = _hidden_digits(left) + _hidden_digits(right)
    if digits > _MOST_DIGITS:
        return None
    found = set()
    for point, everywhere in _points(symbols, left.has(*_STEPS) or right.has(*_STEPS)):
        try:
            found.add(_vanishes_at(left, right, point, digits, real_only=not everywhere))
        except Undefined:
            if not symbols:
                return None
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def _points(symbols, steps: bool):
    """Points, and whether a value that is not real counts there: roots and logarithms are compared where they are real.

    steps: whether the formulas have steps or corners, which more points must not miss.
    """
    if not symbols:
        yield {}, True
        return
    draw = random.Random(len(symbols))
    for _ in range(2):
        yield {symbol: sympy.Integer(draw.randrange(3, 30)) for symbol in symbols}, True
    for _ in range(2):
        yield {symbol: sympy.Rational(draw.randrange(100, 999), 331) for symbol in symbols}, True
    yield {symbol: sympy.Rational(-draw.randrange(100, 999), 331) for symbol in symbols}, False
    if steps:
        yield from _dense_points(symbols, draw)
    if len(symbols) > 1:
        for _ in range(2):
            yield (
                {symbol: sympy.Rational(draw.choice((-1, 1)) * draw.randrange(9, 999), 331) for symbol in symbols},
                False,
            )
    yield {symbol: sympy.Rational(draw.randrange(10, 320), 331) for symbol in symbols}, False


def _dense_points(symbols, draw: random.Random):
    """Integers that follow each other, squares and their neighbours, and numbers of every size and sign."""
    for place in range(1, 50):
        values = [place] if len(symbols) == 1 else [draw.randrange(1, 30) for _ in symbols]
        yield {symbol: sympy.Integer(value) for symbol, value in zip(symbols, values, strict=True)}, False
    for place in range(7, 15):
        for shift in (-1, 0, 1):
            yield (
                {symbol: sympy.Integer((place + 3 * index) ** 2 + shift) for index, symbol in enumerate(symbols)},
                False,
            )
    for _ in range(12):
        yield (
            {
                symbol: sympy.Rational(draw.choice((-1, 1)) * draw.randrange(1, 10 ** draw.randrange(1, 8)), 331)
                for symbol in symbols
            },
            False,
        )


def _hidden_digits(formula) -> int:
    """How small, in decimal digits, a difference of this formula's constants could be."""
    digits, gammas = 0.0, 0
    for part in sympy.preorder_traversal(formula):
        if isinstance(part, sympy.Rational):
            digits += 0.31 * (abs(part.p).bit_length() + part.q.bit_length())
        elif isinstance(part, sympy.Pow | sympy.exp):
            exponent = part.exp
            if exponent.is_number:
                size = abs(exponent.evalf(5))
                if not size.is_comparable or size > _MOST_DIGITS:
                    return _MOST_DIGITS + 1
                digits += 2 * float(size)
        elif isinstance(part, sympy.factorial | sympy.binomial):
            digits += 10
            gammas += 1
            if gammas > _MOST_GAMMAS:
                return _MOST_DIGITS + 1
    return int(digits)


def _vanishes_at(left, right, point, digits: int, real_only: bool) -> bool | None:
    """Whether the two agree at a point; None where a part of them is not real and only reals count."""
    first = 3 * (_SPARE_DIGITS + digits)
    for precision in (first, 2 * first):
        with mpmath.workdps(precision):
            evaluator = _Evaluator(point, real_only)
            one, other = evaluator.value(left), evaluator.value(right)
            if one is None or other is None:
                return None
            if abs(one - other) > evaluator.largest * mpmath.mpf(10) ** (-precision // 3):
                return False
    return True


class _Evaluator:
    def __init__(self, point: dict, real_only: bool):
        self.point = point
        self.real_only = real_only
        self.largest = mpmath.mpf(0)

    def value(self, formula):
        """The value to mpmath's precision; None if a part is not real and that matters. Raises Undefined."""
        try:
            value = self._value(formula)
        except (ZeroDivisionError, ValueError, OverflowError, mpmath.libmp.NoConvergence) as error:
            raise Undefined(str(error)) from None
        if value is None:
            return None
        if not mpmath.isfinite(value):
            raise Undefined("infinite")
        if isinstance(value, mpmath.mpc):
            if value.imag == 0:
                value = value.real
            elif self.real_only:
                return None
        self.largest = max(self.largest, abs(value))
        return value

    def _value(self, formula):
        if formula.is_Rational:
            return mpmath.mpf(formula.p) / formula.q
        if formula.is_Symbol:
            if formula is DEGREE:
                return mpmath.mpf(1)
            value = self.point[formula]
            return mpmath.mpf(value.p) / value.q
        if formula is sympy.pi:
            return +mpmath.pi
        if formula is sympy.E:
            return +mpmath.e
        if formula is sympy.I:
            return mpmath.mpc(0, 1)
        parts = [self.value(part) for part in formula.args]
        if any(part is None for part in parts):
            return None
        if formula.is_Add:
            return mpmath.fsum(parts)
        if formula.is_Mul:
            return mpmath.fprod(parts)
        if formula.is_Pow:
            base, exponent = parts
            if abs(exponent) * (1 + abs(mpmath.log(abs(base)) if base else 0)) > 10 * _MOST_DIGITS:
                raise Undefined("too large a power")
            return mpmath.power(base, exponent)
        if isinstance(formula, sympy.Max | sympy.Min):
            if any(isinstance(part, mpmath.mpc) for part in parts):
                raise Undefined("the larger of two that are not real")
            return max(parts) if isinstance(formula, sympy.Max) else min(parts)
        function = _FUNCTIONS.get(formula.func)
        if function is None or (function in (mpmath.floor, mpmath.ceil) and isinstance(parts[0], mpmath.mpc)):
            raise Undefined(str(formula.func))
        if formula.func in (sympy.factorial, sympy.binomial, sympy.exp) and any(abs(part) > 2000 for part in parts):
            raise Undefined("too large an argument")
        return function(*parts)


def constant_ratio(left, right) -> int | None:
    """The sign of left / right, if that is the same number at every point; None if it is not, or not known."""
    left, right = without_functions(left, right)
    if equal(left, sympy.Integer(0)) is not False or equal(right, sympy.Integer(0)) is not False:
        return None
    copies = {symbol: sympy.Symbol(f"<{symbol.name}>") for symbol in left.free_symbols | right.free_symbols}
    if equal(left * right.xreplace(copies), right * left.xreplace(copies)) is not True:
        return None
    for point, _ in _points(sorted(copies, key=lambda symbol: symbol.name), steps=False):
        evaluator = _Evaluator(point, real_only=True)
        try:
            one, other = evaluator.value(left), evaluator.value(right)
        except Undefined:
            continue
        if one is not None and other is not None and min(abs(one), abs(other)) > evaluator.largest * 1e-9:
            return 1 if one * other > 0 else -1
    return None


def compare_reals(left, right) -> int | None:
    """-1, 0 or 1 as left is less than, equal to or more than right; None where that is not known. Infinities too."""
    if left == right:
        return 0
    for one, sign in ((left, 1), (right, -1)):
        if one is sympy.oo:
            return sign
        if one is -sympy.oo:
            return -sign
    if left.free_symbols or right.free_symbols:
        return None
    same = equal(left, right)
    if same is None:
        return None
    if same:
        return 0
    try:
        with mpmath.workdps(3 * (_SPARE_DIGITS + _hidden_digits(left) + _hidden_digits(right))):
            evaluator = _Evaluator({}, real_only=True)
            one, other = evaluator.value(left), evaluator.value(right)
            return None if one is None or other is None else (1 if one > other else -1)
    except Undefined:
        return None
