"""When a decimal stands for a number that has no short one: `0.2857` for 2/7, `3.141592653589793` for pi."""

import math
import re
from fractions import Fraction

_DECIMAL = re.compile(r"[+-]?(\d*)\.(\d+)", re.ASCII)
_LEAST_DIGITS = 4
_FLOAT_DIGITS = 15


def stands_for(text: str, value: Fraction) -> bool:
    """Whether `text` is `value` rounded to the decimals that it has, or the float next to it.

    At least four digits are asked for, and never a tolerance on integers. value: to 40 digits, if irrational.
    """
    match = _DECIMAL.fullmatch(text.strip())
    if match is None or value.denominator == 1:
        return False
    digits = len((match[1] + match[2]).lstrip("0"))
    given = Fraction(text.strip())
    if digits < _LEAST_DIGITS or given.denominator == 1:
        return False
    if digits >= _FLOAT_DIGITS and _neighbours(given, value):
        return True
    return 2 * abs(given - value) * 10 ** len(match[2]) <= 1


def _neighbours(given: Fraction, value: Fraction) -> bool:
    """Whether the nearest doubles are the same or side by side, as after an operation or two."""
    try:
        one, other = float(given), float(value)
    except OverflowError:  # beyond the largest double
        return False
    return abs(one - other) <= math.ulp(other)
