"""Reads what words say."""

import re

from . import sets
from .tokens import Token, Unread
from .values import Listing, RealSet, Words

_ARTICLES = frozenset(("a", "an", "the"))
_ALL_REALS = (
    ("all", "real", "numbers"),
    ("all", "reals"),
    ("set", "of", "all", "real", "numbers"),
    ("allrealnumbers",),
)


def is_prose(parts: list[Token]) -> bool:
    """Whether nothing but words, numbers and punctuation stands there."""
    return any(part.kind in ("word", "text") for part in parts) and all(
        part.kind in ("word", "text", "letter", "number")
        or part.text in (".", ",", ";", ":", "?", "!", "'", "-", '"', "(", ")")
        for part in parts
    )


def words(parts: list[Token]):
    """What words say; several between commas are a list."""
    text = ""
    for part in parts:
        joined = part.kind != "text" and not part.gap
        text += ("" if joined or not text or text[-1].isspace() else " ") + part.text.replace("~", " ")
    pieces = [piece for piece in re.split(r",|;|\band\b", text) if piece.strip()]
    if len(pieces) > 1 and all(len(piece.split()) <= 2 for piece in pieces):
        return Listing(tuple(_phrase(piece) for piece in pieces))
    return _phrase(text)


def _phrase(text: str) -> Words | RealSet:
    text = text.strip().strip('.,;:!?" ').strip()
    if text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1]
    if len(text) == 1:
        return Words((text,))
    words = tuple(word.strip('.,;:!?"()') for word in text.lower().split())
    words = tuple(word for word in words if word and word not in _ARTICLES)
    if words in _ALL_REALS:
        return sets.EVERYTHING
    if not words:
        raise Unread("no words")
    return Words(words)
