"""The operations of formulas, as far as their results can be written out. All raise Unread where they cannot."""

import sympy

from .tokens import Unread

_BITS = 200_000  # of an integer that is written out
_ROOT_BITS = 4_000  # of a number whose root is taken: sympy looks for factors
_FACTORIAL = 5_000


def is_formula(value: object) -> bool:
    """Whether `value` is a number or formula, and no matrix, which sympy counts among them."""
    return isinstance(value, sympy.Expr) and not isinstance(value, sympy.MatrixBase)


def number(text: str) -> sympy.Rational:
    """A numeral: separated thousands, a decimal point or comma, an exponent."""
    for separator in ("{,}", "\\,", "\\!", "\\;", "\\ ", "~", " ", "\n"):
        text = text.replace(separator, "")
    if "," in text and "." in text and text.rindex(",") > text.rindex("."):
        text = text.replace(".", "").replace(",", ".")
    text = text.replace(",", "")
    mantissa, _, exponent = text.lower().partition("e")
    if exponent:
        if not ("." in mantissa or exponent[0] == "+" or len(exponent.lstrip("-")) > 1 or exponent[0] != "-"):
            raise Unread("an exponent of ten, or the number e?")
        if abs(int(exponent)) > _BITS // 4:
            raise Unread("too large a number")
    return sympy.Rational(text.rstrip("."))


def integer(digits: str) -> sympy.Integer:
    """The integer of so many digits."""
    return sympy.Integer(int(digits))


def letter(name: str) -> sympy.Expr:
    """e and i as the numbers that they are, every other letter as a symbol."""
    return {"e": sympy.E, "i": sympy.I}.get(name) or sympy.Symbol(name)


def add(one, other):
    """one + other. Raises Unread where one is a matrix and the other is not, or is of another shape."""
    if isinstance(one, sympy.MatrixBase) != isinstance(other, sympy.MatrixBase):
        raise Unread("a matrix and a number are added")
    if isinstance(one, sympy.MatrixBase) and one.shape != other.shape:
        raise Unread("matrices of different shapes are added")
    return one + other


def multiply(one, other):
    """one * other. Raises Unread for two matrices."""
    if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
        raise Unread("a product of matrices")
    return one * other


def divide(one, other):
    """one / other. Raises Unread where that is nothing."""
    if isinstance(other, sympy.MatrixBase):
        raise Unread("a matrix under a stroke")
    if other == 0:
        raise Unread("division by zero")
    return one / other


def power(base, exponent) -> sympy.Expr:
    """base ** exponent. Raises Unread where that would be too large to write out."""
    if isinstance(base, sympy.MatrixBase) or isinstance(exponent, sympy.MatrixBase):
        raise Unread("a power of a matrix")
    if isinstance(exponent, sympy.Rational) and isinstance(base, sympy.Rational) and base not in (0, 1, -1):
        size = max(abs(base.p).bit_length(), abs(base.q).bit_length())
        if size * abs(float(exponent)) > _BITS:
            raise Unread("too large a power")
        if not exponent.is_Integer and size > _ROOT_BITS:
            raise Unread("a root of too large a number")
    elif (
        isinstance(exponent, sympy.Integer)
        and abs(exponent) > 10_000
        and base.is_number
        and base not in (sympy.I, -1, 1)
    ):
        if not isinstance(base, sympy.Symbol) and base != sympy.E:
            raise Unread("too large a power")
    if base == 0 and not (exponent.is_positive or exponent.free_symbols):
        raise Unread("zero to a power that is not positive")
    return base**exponent


def factorial(value) -> sympy.Expr:
    """value! Raises Unread where there is none, or it would be too large to write out."""
    if not is_formula(value) or (value.is_number and not value.is_Integer):
        raise Unread("a factorial")
    if value.is_Integer and not 0 <= value <= _FACTORIAL:
        raise Unread("too large a factorial")
    return sympy.factorial(value)


def binomial(n, k) -> sympy.Expr:
    """n choose k. Raises Unread where that would be too large to write out."""
    if not (is_formula(n) and is_formula(k)) or (n.is_number and not n.is_Integer):
        raise Unread("a binomial")
    if n.is_Integer and k.is_Integer and not (0 <= n <= 2 * _FACTORIAL or abs(k) < 100 and n < 10**30):
        raise Unread("too large a binomial")
    return sympy.binomial(n, k)


def fold(function, values: list) -> sympy.Expr:
    """function(function(values[0], values[1]), values[2]) and so on."""
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result
