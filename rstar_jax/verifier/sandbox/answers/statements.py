"""Reads a whole answer: text, lists, relations, sets, intervals, ratios, quantities; formulas by `expressions`."""

import re

import sympy
from sympy.core.function import AppliedUndef

from . import algebra, dress, expressions, sets, tokens, units
from .tokens import Token, Unread
from .values import (
    Ambiguous,
    Bracketed,
    Definition,
    Expression,
    Listing,
    Named,
    Numeral,
    Ratio,
    RealSet,
    Relation,
    Residue,
    Words,
)

_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\equiv", r"\approx")
_BARE_DECIMAL = re.compile(r"[+-]?(?:\d[\d,]*)?\.\d+|[+-]?\d+\.")
_ARTICLES = frozenset(("a", "an", "the"))
_FOR_ALL = re.compile(r"[,\s]*for (?:all|any|every|each)\b", re.IGNORECASE)
_DOMAIN_WORDS = frozenset(
    "real reals rational number numbers integer integers positive natural nonnegative non-negative negative all in "
    "complex nonzero".split()
)
_HALVES = re.compile(r"([ap])\.?\s?m\.?", re.IGNORECASE)
_MOST_ITEMS = 200


def read(text: str):
    """The value (see `values`) that `text` says. Raises Unread where that is not all of it."""
    bare = dress.taken_off(text)
    parts = tokens.split(bare)
    while parts and parts[-1].text in (".", ",", ";") and parts[-1].kind == "sign":
        parts.pop()
    if not parts:
        raise Unread("nothing")
    return _Statement(plain="\\" not in bare and "{" not in bare).whole(parts)


class _Statement:
    """plain: the text is no LaTeX."""

    def __init__(self, plain: bool):
        self.plain = plain

    def whole(self, parts: list[Token]):
        """Words, or mathematics."""
        if all(part.kind in ("word", "text") for part in parts) and not (
            len(parts) > 1 and any(_conjunction(part) for part in parts)
        ):
            return _words(parts)
        if parts[0].text == "{" and parts[0].kind == "sign" and expressions.closing(parts, 0) == len(parts) - 1:
            if not _split(parts[1:-1], (",",))[1]:
                return self.whole(parts[1:-1])  # braces of TeX around it all
        try:
            return self.listing(parts)
        except Unread as error:
            if _is_prose(parts):
                return _words(parts)
            said = self._said_twice(parts)
            if said is None:
                raise error
            return said

    def _said_twice(self, parts: list[Token]) -> RealSet | None:
        """`x > 3: (3, \\infty)`, if both sides of the colon say the same."""
        pieces, colons = _split(parts, (":",))
        if len(colons) == 1 and all(pieces):
            first, second = (as_set(self.listing(piece)) for piece in pieces)
            if first is not None and second is not None and sets.equal(first, second):
                return first
        return None

    # Lists.

    def listing(self, parts: list[Token]):
        """One item, or several between commas, "and" and "or"."""
        parts, domain = _without_domain(parts)
        merged = _thousands(parts)
        if merged is not None:
            first = self._items(merged)
            try:
                return Ambiguous((first, self._items(parts)))
            except Unread:
                return first
        value = self._items(parts)
        if isinstance(value, Listing) and (decimal := _european(parts)) is not None:
            return Ambiguous((value, Expression(sympy.Rational(decimal), decimal)))
        if not domain:
            return value
        if isinstance(value, Definition) and value.argument is not None and value.argument in domain:
            return Definition(value.name, value.value, value.argument, domain)
        raise Unread("a condition")

    def _items(self, parts: list[Token]):
        pieces, separators = _split_list(parts)
        if len(pieces) > _MOST_ITEMS:
            raise Unread("a long list")
        if len(pieces) == 1:
            return self.item(pieces[0])
        values = []
        for piece in pieces:
            value = self.item(piece)
            inner = value.items if isinstance(value, Listing) and not value.braces else (value,)
            if isinstance(value, Listing) and value.name is not None:
                inner = tuple(Definition(value.name, one) for one in inner)
            values.extend(inner)
        return _together(values, set(separators))

    # Items.

    def item(self, parts: list[Token]):
        """A relation, or a value; twice, where there is a plus-minus."""
        if len(parts) > 1 and parts[0].text in (r"\approx", "="):
            parts = parts[1:]
        if not parts:
            raise Unread("nothing between separators")
        signs = [place for place, part in enumerate(parts) if part.text in (r"\pm", r"\mp")]
        if len(signs) == 1:
            place = signs[0]
            both = [
                self.item([*parts[:place], Token("sign", sign, parts[place].gap), *parts[place + 1 :]])
                for sign in ("+", "-")
            ]
            return _together(both, {","})
        if signs:
            raise Unread("do the signs belong together?")
        if len(parts) == 1 and parts[0].kind in ("word", "text"):
            return _words(parts)
        sides, operators = _split(parts, _RELATIONS)
        return self._relation(sides, operators) if operators else self.value(parts)

    def _relation(self, sides: list[list[Token]], operators: list[str]):
        if not all(sides):
            raise Unread("a relation without a side")
        kinds = set(operators)
        if kinds == {"="}:
            return self._equation(sides)
        if kinds == {r"\in"} and len(sides) == 2:
            name, value = expressions.names_one(sides[0]), self.value(sides[1])
            if name is None:
                raise Unread("an element that is no variable")
            if isinstance(value, Bracketed):
                value = as_set(value)
            if isinstance(value, RealSet):
                return RealSet(value.pieces, name)
            if isinstance(value, Listing):
                return Listing(value.items, value.braces, name)
            raise Unread("the set that it is in")
        if kinds == {r"\approx"} and len(sides) == 2:
            return self._approximation(sides)
        if kinds == {r"\equiv"} and len(sides) == 2:
            name, value = expressions.names_one(sides[0]), self.value(sides[1])
            if name is None or not isinstance(value, Residue):
                raise Unread("a congruence")
            return Residue(value.value, value.modulus, name)
        if kinds <= {"<", r"\le"} or kinds <= {">", r"\ge"} or (kinds == {r"\ne"} and len(sides) == 2):
            return self._inequality(sides, operators)
        raise Unread("relations of several kinds")

    def _approximation(self, sides: list[list[Token]]):
        """`x \\approx 0.5`; `\\sqrt{2} \\approx 1.414` is its left side if that is so."""
        name = expressions.names_one(sides[0])
        right = self.value(sides[1])
        if name is not None:
            return Definition(name, right)
        left = self.value(sides[0])
        if isinstance(left, Expression) and isinstance(right, Expression) and left.unit == right.unit:
            behind = len((right.decimal or "").partition(".")[2])
            gap = algebra.compare_reals(abs(left.value - right.value) * 2 * 10**behind, sympy.Integer(1))
            if gap is not None and gap <= 0:
                return left
        raise Unread("an approximation of something else")

    def _equation(self, sides: list[list[Token]]):
        name, argument = _defined(sides[0])
        if name is not None:
            values = [self._side(side) for side in sides[1:]]
            if _agree(values) and not _mentions(values[-1], name):
                return Definition(name, values[-1], argument)
        values = [self._side(side) for side in sides]
        if not all(isinstance(value, Expression) and value.unit is None for value in values):
            raise Unread("an equation of what is no formula")
        name = expressions.names_one(sides[-1])
        if name is not None and _agree(values[:-1]) and not _mentions(values[0], name):
            return Definition(name, values[-2])
        if not any(value.value.free_symbols or value.value.has(AppliedUndef) for value in values):
            if _agree(values):
                return Definition("".join(tokens.canonical(sides[0])), values[-1])  # 2+2=4 is 4
            raise Unread("an equation that does not hold")
        if any(isinstance(value.value, sympy.MatrixBase) for value in values):
            raise Unread("an equation of matrices")
        sides = [value.value for value in values]
        if any(_proportional(one, other) for one, other in zip(sides[:-1], sides[1:], strict=True)):
            raise Unread("an equation of what differs in a number only")
        return Relation(tuple(sides), ("=",) * (len(values) - 1))

    def _side(self, side: list[Token]):
        if len(side) == 1 and side[0].kind in ("word", "text"):
            return _words(side)
        return self.value(side)

    def _inequality(self, sides: list[list[Token]], operators: list[str]):
        values = []
        for side in sides:
            value = self.value(side)
            if not isinstance(value, Expression) or not expressions.is_formula(value.value) or value.unit is not None:
                raise Unread("an inequality of what is no number")
            values.append(value.value)
        if operators[0] in (">", r"\ge"):
            values.reverse()
            operators = [{">": "<", r"\ge": r"\le"}[operator] for operator in reversed(operators)]
        for place in range(len(values) - 1):
            solved = _solved(values, operators, place)
            if solved is not None:
                return solved
        if any(_proportional(one, other) for one, other in zip(values[:-1], values[1:], strict=True)):
            raise Unread("an inequality of what differs in a number only")
        return Relation(tuple(values), tuple(operators))

    # Values.

    def value(self, parts: list[Token]):
        """What is no relation: a set, tuple, interval, ratio, remainder, quantity or formula."""
        if not parts:
            raise Unread("nothing where a value is expected")
        pieces, operators = _split(parts, (r"\cup", r"\cap", r"\setminus"))
        if operators:
            return self._combined(pieces, operators)
        if len(parts) == 1 and (named := _named_set(parts[0])) is not None:
            return named
        if any(part.text in (r"\pmod", r"\bmod") for part in parts):
            return self._residue(parts)
        first, last = parts[0], parts[-1]
        if first.text in ("(", "[", r"\{", "{", r"\langle", "]") and first.kind != "text":
            bracketed = self._bracketed(parts, first.text, last.text)
            if bracketed is not None:
                return bracketed
        numeral = _numeral(parts)
        if numeral is not None:
            return numeral
        pieces, operators = _split(parts, (":",))
        if operators:
            return self._ratio(pieces)
        return self._quantity(parts)

    def _bracketed(self, parts: list[Token], left: str, right: str):
        """A tuple, interval or set, if one pair of brackets holds all of `parts`."""
        if left != "]" and expressions.closing(_angles(parts), 0) != len(parts) - 1:
            return None
        inner = parts[1:-1]
        if left in (r"\{", "{"):
            if right not in (r"\}", "}"):
                return None
            return self._set(inner, braces=left == r"\{")
        if right not in (")", "]", "[", r"\rangle"):
            return None
        pieces, separators = _split(inner, (",", ";"))
        if not separators:
            return None
        if left == r"\langle" and right == r"\rangle":
            left, right = "(", ")"
        items = tuple(self._element(piece) for piece in pieces)
        french = {"]": "(", "[": ")"}
        if left == "]" or right == "[":  # ]0, 1[
            left, right = french.get(left, left) if left == "]" else left, french["["] if right == "[" else right
        return Bracketed(left, right, items)

    def _element(self, parts: list[Token]):
        if not parts:
            raise Unread("an element is missing")
        if all(part.kind in ("word", "text") for part in parts):
            return _words(parts)
        return self.item(parts)

    def _set(self, inner: list[Token], braces: bool):
        if not inner:
            return Listing((), True)
        for bar in ("|", r"\mid", ":"):
            pieces, operators = _split(inner, (bar,))
            if len(operators) == 1:
                return self._built(*pieces)
        pieces, separators = _split(inner, (",", ";"))
        if not separators and not braces:
            return None
        values = []
        for piece in pieces:
            value = self._element(piece)
            values.extend(value.items if isinstance(value, Listing) and not value.braces else (value,))
        return Listing(tuple(values), True)

    def _built(self, left: list[Token], right: list[Token]):
        """`{x | x > 2}`: what the condition says of the variable."""
        sides, operators = _split(left, (r"\in",))
        if operators and _named_set(sides[1][0] if len(sides[1]) == 1 else Token("sign", "")) is not sets.EVERYTHING:
            raise Unread("a set of some numbers only")
        name = expressions.names_one(sides[0])
        value = self.listing(right)
        if name is None or not isinstance(value, RealSet) or value.name != name:
            raise Unread("a condition of a set")
        return value

    def _combined(self, pieces: list[list[Token]], operators: list[str]):
        if len(set(operators)) > 1:
            raise Unread("unions and intersections without brackets")
        parts = [as_set(self.value(piece)) if piece else None for piece in pieces]
        if None in parts:
            raise Unread("a union of what are no sets of numbers")
        if operators[0] == r"\cup":
            return sets.union(parts)
        if operators[0] == r"\cap":
            return sets.intersection(parts)
        removed = [piece for part in parts[1:] for piece in part.pieces]
        if any(piece.low != piece.high for piece in removed):
            raise Unread("an interval is taken out")
        return sets.without(parts[0], [piece.low for piece in removed])

    def _residue(self, parts: list[Token]):
        """`3 \\pmod 5`."""
        place = next(place for place, part in enumerate(parts) if part.text in (r"\pmod", r"\bmod"))
        value = expressions.read(parts[:place], self.plain)
        behind = parts[place + 1 :]
        if (
            parts[place].text == r"\pmod"
            and len(behind) == 1
            and behind[0].kind == "number"
            and len(behind[0].text) > 1
        ):
            behind = [behind[0]]
        modulus = expressions.read(behind, self.plain)
        if parts[place].text == r"\bmod" and value.is_Integer and modulus.is_Integer and modulus > 0:
            return Residue(value, modulus)
        return Residue(value, modulus)

    def _ratio(self, pieces: list[list[Token]]):
        half = None
        last = pieces[-1]
        if len(last) > 1 and (match := _HALVES.fullmatch("".join(part.text for part in last[1:]).strip())):
            half, last = match[1].lower(), last[:1]
        pieces = [*pieces[:-1], last]
        values = []
        for piece in pieces:
            value = expressions.read(piece, self.plain)
            if not expressions.is_formula(value) or value == 0:
                raise Unread("a ratio of what is no number, or zero")
            values.append(value)
        clock = None
        texts = [piece[0].text for piece in pieces if len(piece) == 1 and piece[0].kind == "number"]
        if len(texts) == len(pieces) == 2 and re.fullmatch(r"\d{1,2}", texts[0]) and re.fullmatch(r"[0-5]\d", texts[1]):
            clock = int(texts[0]), int(texts[1])
        if half is not None and clock is None:
            raise Unread("a time of day")
        return Ratio(tuple(values), clock, half)

    def _quantity(self, parts: list[Token]):
        """A formula, with a unit or without."""
        unit = None
        if parts[0].text in units.CURRENCIES and len(parts) > 1:
            unit, parts = units.CURRENCIES[parts[0].text], parts[1:]
        elif parts[-1].text in units.CURRENCIES and len(parts) > 1:
            unit, parts = units.CURRENCIES[parts[-1].text], parts[:-1]
        elif len(parts) > 2 and parts[0].text == "-" and parts[1].text in units.CURRENCIES:
            unit, parts = units.CURRENCIES[parts[1].text], [parts[0], *parts[2:]]
        else:
            parts, unit = _without_unit(parts)
        if len(parts) == 1 and parts[0].kind == "number" and isinstance(unit, str):
            return Ratio((expressions.read(parts),), (int(parts[0].text), 0), unit)
        if isinstance(unit, str):
            raise Unread("a time of day")
        value = expressions.read(parts, self.plain)
        written = "".join(part.text for part in parts)
        decimal = written if _BARE_DECIMAL.fullmatch(written) else None
        if unit == units.DEGREE:
            return Expression(value * expressions.DEGREE)
        if unit == units.RADIAN:
            unit = None
        return Expression(value, decimal, unit)


# Splitting.


def _split(parts: list[Token], at: tuple[str, ...]) -> tuple[list[list[Token]], list[str]]:
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


def _conjunction(part: Token) -> str | None:
    """ "and" or "or", where a token says just that."""
    if part.kind not in ("word", "text"):
        return None
    word = part.text.strip(" ,;~").lower()
    return word if word in ("and", "or") else None


def _split_list(parts: list[Token]) -> tuple[list[list[Token]], list[str]]:
    marked = [
        Token("sign", "and" if _conjunction(part) == "and" else "or", part.gap) if _conjunction(part) else part
        for part in parts
    ]
    pieces, separators = _split(marked, (",", ";", "and", "or"))
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


def _thousands(parts: list[Token]) -> list[Token] | None:
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


def _european(parts: list[Token]) -> str | None:
    """The decimal that `0,5` would be."""
    sign, rest = ("-", parts[1:]) if parts[0].text == "-" else ("", parts)
    if len(rest) == 3 and rest[0].text == "0" and rest[1].text == "," and rest[2].text.isdigit() and not rest[2].gap:
        return f"{sign}0.{rest[2].text}"
    return None


def _angles(parts: list[Token]) -> list[Token]:
    """With brackets in place of angles, which only `closing` does not know."""
    swap = {r"\langle": "(", r"\rangle": ")"}
    return [part._replace(text=swap.get(part.text, part.text)) for part in parts]


def _without_domain(parts: list[Token]) -> tuple[list[Token], tuple[str, ...]]:
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


# Words.


def _is_prose(parts: list[Token]) -> bool:
    return any(part.kind in ("word", "text") for part in parts) and all(
        part.kind in ("word", "text", "letter", "number")
        or part.text in (".", ",", ";", ":", "?", "!", "'", "-", '"', "(", ")")
        for part in parts
    )


def _words(parts: list[Token]):
    """What words say; several between commas are a list."""
    text = ""
    for part in parts:
        joined = part.kind != "text" and not part.gap
        text += ("" if joined or not text or text[-1].isspace() else " ") + part.text.replace("~", " ")
    pieces = [piece for piece in re.split(r",|;|\band\b", text) if piece.strip()]
    if len(pieces) > 1 and all(len(piece.split()) <= 2 for piece in pieces):
        return Listing(tuple(_phrase(piece) for piece in pieces))
    return _phrase(text)


def _phrase(text: str) -> Words:
    text = text.strip().strip('.,;:!?" ').strip()
    if text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1]
    if len(text) == 1:
        return Words((text,))
    words = tuple(word.strip('.,;:!?"()') for word in text.lower().split())
    words = tuple(word for word in words if word and word not in _ARTICLES)
    if not words:
        raise Unread("no words")
    return Words(words)


# Putting items together.


def _together(values: list, separators: set[str]):
    """Several items as one value."""
    if any(isinstance(value, Expression) and value.unit is not None for value in values):
        if len({value.unit for value in values if isinstance(value, Expression)} - {None}) > 1:
            raise Unread("a list of different units")
    if all(isinstance(value, RealSet) for value in values) and len({value.name for value in values}) == 1:
        if values[0].name is not None and separators == {"or"}:
            return sets.union(values)
        if values[0].name is not None and separators == {"and"}:
            return sets.intersection(values)
        return Listing(tuple(values))
    definitions = [value for value in values if isinstance(value, Definition)]
    if definitions and isinstance(values[0], Definition):
        names = {value.name for value in definitions}
        plain = [value for value in values if not isinstance(value, Definition)]
        functions = any(value.argument is not None for value in definitions)
        if (
            len(names) == 1
            and not functions
            and not any(isinstance(value, RealSet | Relation | Words) for value in plain)
        ):
            return Listing(
                tuple(value.value if isinstance(value, Definition) else value for value in values),
                name=names.pop(),
            )
        if not all(isinstance(value, RealSet | Relation) for value in plain):
            raise Unread("equations and values in one list")
    return Listing(tuple(values))


def _agree(values: list) -> bool:
    """Whether all are known to be the same."""
    if len(values) == 1:
        return True
    if not all(isinstance(value, Expression) and value.unit is None for value in values):
        return False
    return all(algebra.equal(values[0].value, value.value) is True for value in values[1:])


def _proportional(one, other) -> bool:
    """Whether nothing but a number stands between two sides: products of letters that are points, or an identity."""
    return other == 0 and one.is_number or other != 0 and (one / other).is_number


def _mentions(value, name: str) -> bool:
    if not isinstance(value, Expression):
        return False
    return any(symbol.name == name for symbol in value.value.free_symbols)


def _defined(side: list[Token]) -> tuple[str | None, str | None]:
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
        pieces, separators = _split(side[1:-1], (",",))
        names = [expressions.names_one(piece) for piece in pieces]
        if separators and None not in names:
            return "(" + ",".join(names) + ")", None
    return None, None


def _solved(values: list, operators: list[str], place: int) -> RealSet | None:
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


def as_set(value) -> RealSet | None:
    """An interval or a set of numbers as a union of pieces, else None. Raises Unread for ends in no order."""
    if isinstance(value, RealSet):
        return value
    if isinstance(value, Bracketed) and len(value.items) == 2:
        ends = [item.value for item in value.items if isinstance(item, Expression) and item.unit is None]
        if len(ends) == 2 and all(expressions.is_formula(end) for end in ends):
            return sets.interval(ends[0], value.left == "(", ends[1], value.right == ")")
    if isinstance(value, Listing) and value.braces and all(isinstance(item, Expression) for item in value.items):
        return RealSet(tuple(sets.point(item.value) for item in value.items))
    return None


# Small values.


def _named_set(part: Token):
    if part.text == r"\emptyset":
        return Listing((), True)
    if part.text == r"\mathbb{R}":
        return sets.EVERYTHING
    if part.text.startswith(r"\mathbb{") and part.kind == "command":
        return Named(part.text[8:-1])
    return None


def _numeral(parts: list[Token]) -> Numeral | None:
    """`1011_2`, `52_{8}`."""
    if parts[0].text == "-" and len(parts) > 1:
        positive = _numeral(parts[1:])
        return None if positive is None else Numeral("-" + positive.digits, positive.base)
    if len(parts) < 3 or parts[0].kind != "number" or not parts[0].text.isdigit() or parts[1].text != "_":
        return None
    base = parts[2:]
    if [part.text for part in base[:1] + base[-1:]] == ["{", "}"]:
        base = base[1:-1]
    if len(base) == 1 and base[0].kind == "text" and base[0].text.strip().lower() in ("two", "eight", "ten", "sixteen"):
        base = [Token("number", {"two": "2", "eight": "8", "ten": "10", "sixteen": "16"}[base[0].text.strip().lower()])]
    if len(base) != 1 or not base[0].text.isdigit() or len(base[0].text) > 2 or not 2 <= int(base[0].text) <= 36:
        raise Unread("a base")
    number = int(base[0].text)
    if any(int(digit) >= number for digit in parts[0].text):
        raise Unread("a digit that its base has not")
    return Numeral(parts[0].text.lstrip("0") or "0", number)


def _without_unit(parts: list[Token]):
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
        if match := _HALVES.fullmatch(name):
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
