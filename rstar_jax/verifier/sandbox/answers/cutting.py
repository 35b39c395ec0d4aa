"""Takes the tokens of an answer apart: at commas and signs, thousands, trailing conditions and units."""

import re

from . import units
from .tokens import Token, Unread

_FOR_ALL = re.compile(r"[,\s]*for (?:all|any|every|each)\b", re.IGNORECASE)
_DOMAIN_WORDS = frozenset(
    "real reals rational number numbers integer integers positive natural nonnegative non-negative negative all in "
    "complex nonzero".split()
)
HALVES = re.compile(r"([ap])\.?\s?m\.?", re.IGNORECASE)  # of a day


def split(parts: list[Token], at: tuple[str, ...]) -> tuple[list[list[Token]], list[str]]:
    """The parts between tokens of `at` that no bracket holds, and those tokens."""
    pieces: list[list[Token]] = [[]]
    found: list[str] = []
    depth = 0
    bars = 0
    for place, part in enumerate(parts):
        if part.kind in ("begin", "end"):
            depth += 1 if part.kind == "begin" else -1
        elif part.kind in ("sign", "command"):
            depth += (part.text in ("(", "[", "{", r"\{", r"\lfloor", r"\lceil", r"\langle")) - (
                part.text in (")", "]", "}", r"\}", r"\rfloor", r"\rceil", r"\rangle")
            )
            if part.text == "|" and "|" not in at:
                bars += 1
            if (
                part.text in at
                and (depth == 0 or (place in (0,) and depth < 0))
                and (bars % 2 == 0 or part.text != ",")
            ):
                pieces.append([])
                found.append(part.text)
                continue
        pieces[-1].append(part)
    return pieces, found


def conjunction(part: Token) -> str | None:
    """ "and" or "or", where a token says just that."""
    if part.kind not in ("word", "text"):
        return None
    word = part.text.strip(" ,;~").lower()
    return word if word in ("and", "or") else None


def split_list(parts: list[Token]) -> tuple[list[list[Token]], list[str]]:
    """The items of a list, and what stands between them: a comma, "and" or "or"."""
    marked = [
        Token("sign", "and" if conjunction(part) == "and" else "or", part.gap) if conjunction(part) else part
        for part in parts
    ]
    pieces, separators = split(marked, (",", ";", "and", "or"))
    kept: list[list[Token]] = []
    joints: list[str] = []
    for place, piece in enumerate(pieces):
        if piece:
            kept.append(piece)
            if place < len(separators):
                joints.append(separators[place])
        elif kept and place < len(separators) and separators[place] in ("and", "or") and separators[place - 1] == ",":
            joints[-1] = separators[place]  # ", and"
        else:
            raise Unread("nothing between separators")
    return kept, joints


def thousands(parts: list[Token]) -> list[Token] | None:
    """With `1,234,567` as one number; None if there is none. Groups of another size make a list."""
    merged: list[Token] = []
    found = False
    depth = place = 0
    while place < len(parts):
        part = parts[place]
        depth += (part.text in ("(", "[", r"\{", "{")) - (part.text in (")", "]", r"\}", "}"))
        end = place
        while (
            part.kind == "number"
            and end + 2 < len(parts)
            and parts[end + 1].text == ","
            and not parts[end + 1].gap
            and parts[end + 2].kind == "number"
            and not parts[end + 2].gap
        ):
            end += 2
        groups = [one.text for one in parts[place : end + 1 : 2]]
        if (
            end > place
            and depth == 0
            and re.fullmatch(r"[1-9]\d{0,2}", groups[0])
            and all(re.fullmatch(r"\d{3}", group) for group in groups[1:-1])
            and re.fullmatch(r"\d{3}(\.\d*)?", groups[-1])
        ):
            merged.append(Token("number", "".join(groups), part.gap))
            found = True
        else:
            merged.extend(parts[place : end + 1])
        place = end + 1
    return merged if found else None


def european(parts: list[Token]) -> str | None:
    """The decimal that `0,5` would be."""
    sign, rest = ("-", parts[1:]) if parts[0].text == "-" else ("", parts)
    if len(rest) == 3 and rest[0].text == "0" and rest[1].text == "," and rest[2].text.isdigit() and not rest[2].gap:
        return f"{sign}0.{rest[2].text}"
    return None


def angles(parts: list[Token]) -> list[Token]:
    """With brackets in place of angles, which only `closing` does not know."""
    swap = {r"\langle": "(", r"\rangle": ")"}
    return [part._replace(text=swap.get(part.text, part.text)) for part in parts]


def without_domain(parts: list[Token]) -> tuple[list[Token], tuple[str, ...]]:
    """The tokens before a trailing "for all x in N", and what it says. Raises Unread for another condition."""
    for place, part in enumerate(parts):
        if place == 0:
            continue
        following = parts[place + 1].text.lower() if place + 1 < len(parts) else ""
        starts = (
            part.text == r"\forall"
            or (part.kind == "text" and _FOR_ALL.match(part.text))
            or (part.kind == "word" and part.text.lower() == "for" and following in ("all", "any", "every", "each"))
        )
        if not starts:
            continue
        said: list[str] = []
        for other in parts[place:]:
            if other.kind in ("text", "word"):
                said.extend(_FOR_ALL.sub(" ", other.text).replace(",", " ").split())
            elif other.text not in (r"\forall", ","):
                said.append(other.text)
        said = [word for word in said if word.lower() not in ("for", "all", "any", "every", "each")]
        for word in said:
            if not (len(word) == 1 or word.lower() in _DOMAIN_WORDS or word == r"\in" or word.startswith(r"\mathbb{")):
                raise Unread("a condition")
        before = parts[:place]
        while before and before[-1].text == ",":
            before = before[:-1]
        return before, tuple(said)
    return parts, ()


def without_unit(parts: list[Token]):
    """The tokens before a trailing unit, and the unit, or None; "a" or "p" for a time of day."""
    if len(parts) > 1 and parts[-1].text == "%" and parts[-1].kind == "sign":
        return parts[:-1], units.PERCENT
    depth = 0
    for place, part in enumerate(parts):
        if part.kind in ("sign", "command", "begin", "end"):
            depth += (part.text in ("(", "[", "{", r"\{") or part.kind == "begin") - (
                part.text in (")", "]", "}", r"\}") or part.kind == "end"
            )
        if place == 0 or depth or part.kind not in ("text", "word"):
            continue
        name = _unit_text(parts[place:])
        if name is None:
            return parts, None
        if parts[place - 1].text == "°":
            unit = units.read("°" + name) if name in ("C", "F") else None
            return (parts[: place - 1], unit) if unit is not None else (parts, None)
        if match := HALVES.fullmatch(name):
            return parts[:place], match[1].lower()
        unit = units.read(name)
        if unit is None or (part.kind == "word" and units.is_short(name)):
            return parts, None
        return parts[:place], unit
    return parts, None


def _unit_text(parts: list[Token]) -> str | None:
    """What the tokens behind a number would be as a unit's name; None where a sign is among them that no unit has."""
    text = ""
    for part in parts:
        if part.kind in ("text", "word"):
            text += " " + part.text
        elif part.text in ("^", "/", "{", "}", "-") or (part.kind == "number" and part.text in ("2", "3", "1")):
            text += part.text
        elif part.text == "*":
            text += " * "
        else:
            return None
    return " ".join(text.split())
