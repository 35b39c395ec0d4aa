"""Which answers can be compared without any algebra: equal text, and plain numbers as exact fractions."""

import re
from fractions import Fraction

from rstar_jax.verifier.sandbox import decimals

_CHARACTERS = 1000
_INTEGER = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(rf"([+-]?)(?:({_INTEGER})(?:\.(\d*))?|\.(\d+))", re.ASCII)
_FRACTION = re.compile(r"([+-]?)(?:\\[dt]?frac\{([+-]?\d+)\}\{([+-]?\d+)\}|(\d+)/(\d+))", re.ASCII)
_MIXED = re.compile(r"([+-]?)(\d+)(?: (\d+)/(\d+)|\\[dt]?frac\{(\d+)\}\{(\d+)\})", re.ASCII)


def normalized(text: str) -> str:
    """`text` without blanks around it, dollar signs and a final full stop."""
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "$" and "$" not in text[1:-1] and text[-2] != "\\":
        text = text[1:-1].strip()
    return text.removesuffix(".").strip()


def number(text: str) -> Fraction | None:
    """The value of an integer (commas between thousands allowed), decimal, fraction or mixed number, else None."""
    if len(text) > _CHARACTERS:
        return None
    if match := _NUMBER.fullmatch(text):
        sign, whole, decimals, bare = match.groups()
        digits = f"{(whole or '0').replace(',', '')}.{decimals or bare or '0'}"
        return Fraction(f"{sign}{digits}")
    if match := _FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        numerator, denominator = (int(part) for part in parts if part is not None)
        return None if denominator == 0 else Fraction(numerator, denominator) * (-1 if sign == "-" else 1)
    if match := _MIXED.fullmatch(text):
        sign, *parts = match.groups()
        whole, numerator, denominator = (int(part) for part in parts if part is not None)
        proper = 0 < numerator < denominator
        return (whole + Fraction(numerator, denominator)) * (-1 if sign == "-" else 1) if proper else None
    return None


def compare(gold: str, answer: str) -> bool | None:
    """True or False where that is certain, None where it takes reading. Raises nothing."""
    gold, answer = normalized(gold), normalized(answer)
    if not gold or not answer:
        return False
    if gold == answer:
        return True
    left, right = number(gold), number(answer)
    if left is not None and right is not None:
        return left == right or (_FRACTION.fullmatch(gold) is not None and decimals.stands_for(answer, left))
    return None
