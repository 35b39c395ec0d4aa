"""Reads a whole answer: text, lists, relations, sets, intervals, ratios, quantities; formulas by `expressions`."""

import re

import sympy
from sympy.core.function import AppliedUndef

from . import algebra, arithmetic, cutting, dress, expressions, prose, relations, sets, tokens, units
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
            len(parts) > 1 and any(cutting.conjunction(part) for part in parts)
        ):
            return prose.words(parts)
        if parts[0].text == "{" and parts[0].kind == "sign" and expressions.closing(parts, 0) == len(parts) - 1:
            if not cutting.split(parts[1:-1], (",",))[1]:
                return self.whole(parts[1:-1])  # braces of TeX around it all
        try:
            return self.listing(parts)
        except Unread as error:
            if prose.is_prose(parts):
                return prose.words(parts)
            said = self._said_twice(parts)
            if said is None:
                raise error
            return said

    def _said_twice(self, parts: list[Token]) -> RealSet | None:
        """`x > 3: (3, \\infty)`, if both sides of the colon say the same."""
        pieces, colons = cutting.split(parts, (":",))
        if len(colons) == 1 and all(pieces):
            first, second = (as_set(self.listing(piece)) for piece in pieces)
            if first is not None and second is not None and sets.equal(first, second):
                return first
        return None

    # Lists.

    def listing(self, parts: list[Token]):
        """One item, or several between commas, "and" and "or"."""
        parts, domain = cutting.without_domain(parts)
        merged = cutting.thousands(parts)
        if merged is not None:
            first = self._items(merged)
            try:
                return Ambiguous((first, self._items(parts)))
            except Unread:
                return first
        value = self._items(parts)
        if isinstance(value, Listing) and (decimal := cutting.european(parts)) is not None:
            return Ambiguous((value, Expression(sympy.Rational(decimal), decimal)))
        if not domain:
            return value
        if isinstance(value, Definition) and value.argument is not None and value.argument in domain:
            return Definition(value.name, value.value, value.argument, domain)
        raise Unread("a condition")

    def _items(self, parts: list[Token]):
        pieces, separators = cutting.split_list(parts)
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
            return prose.words(parts)
        sides, operators = cutting.split(parts, _RELATIONS)
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
        name, argument = relations.defined(sides[0])
        if name is not None:
            values = [self._side(side) for side in sides[1:]]
            if relations.agree(values) and not relations.mentions(values[-1], name):
                return Definition(name, values[-1], argument)
        values = [self._side(side) for side in sides]
        if not all(isinstance(value, Expression) and value.unit is None for value in values):
            raise Unread("an equation of what is no formula")
        name = expressions.names_one(sides[-1])
        if name is not None and relations.agree(values[:-1]) and not relations.mentions(values[0], name):
            return Definition(name, values[-2])
        if not any(value.value.free_symbols or value.value.has(AppliedUndef) for value in values):
            if relations.agree(values):
                return Definition("".join(tokens.canonical(sides[0])), values[-1])  # 2+2=4 is 4
            raise Unread("an equation that does not hold")
        if any(isinstance(value.value, sympy.MatrixBase) for value in values):
            raise Unread("an equation of matrices")
        sides = [value.value for value in values]
        if any(relations.proportional(one, other) for one, other in zip(sides[:-1], sides[1:], strict=True)):
            raise Unread("an equation of what differs in a number only")
        return Relation(tuple(sides), ("=",) * (len(values) - 1))

    def _side(self, side: list[Token]):
        if len(side) == 1 and side[0].kind in ("word", "text"):
            return prose.words(side)
        return self.value(side)

    def _inequality(self, sides: list[list[Token]], operators: list[str]):
        values = []
        for side in sides:
            value = self.value(side)
            if not isinstance(value, Expression) or not arithmetic.is_formula(value.value) or value.unit is not None:
                raise Unread("an inequality of what is no number")
            values.append(value.value)
        if operators[0] in (">", r"\ge"):
            values.reverse()
            operators = [{">": "<", r"\ge": r"\le"}[operator] for operator in reversed(operators)]
        for place in range(len(values) - 1):
            solved = relations.solved(values, operators, place)
            if solved is not None:
                return solved
        if any(relations.proportional(one, other) for one, other in zip(values[:-1], values[1:], strict=True)):
            raise Unread("an inequality of what differs in a number only")
        return Relation(tuple(values), tuple(operators))

    # Values.

    def value(self, parts: list[Token]):
        """What is no relation: a set, tuple, interval, ratio, remainder, quantity or formula."""
        if not parts:
            raise Unread("nothing where a value is expected")
        pieces, operators = cutting.split(parts, (r"\cup", r"\cap", r"\setminus"))
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
        pieces, operators = cutting.split(parts, (":",))
        if operators:
            return self._ratio(pieces)
        return self._quantity(parts)

    def _bracketed(self, parts: list[Token], left: str, right: str):
        """A tuple, interval or set, if one pair of brackets holds all of `parts`."""
        if left != "]" and expressions.closing(cutting.angles(parts), 0) != len(parts) - 1:
            return None
        inner = parts[1:-1]
        if left in (r"\{", "{"):
            if right not in (r"\}", "}"):
                return None
            return self._set(inner, braces=left == r"\{")
        if right not in (")", "]", "[", r"\rangle"):
            return None
        pieces, separators = cutting.split(inner, (",", ";"))
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
            return prose.words(parts)
        return self.item(parts)

    def _set(self, inner: list[Token], braces: bool):
        if not inner:
            return Listing((), True)
        for bar in ("|", r"\mid", ":"):
            pieces, operators = cutting.split(inner, (bar,))
            if len(operators) == 1:
                return self._built(*pieces)
        pieces, separators = cutting.split(inner, (",", ";"))
        if not separators and not braces:
            return None
        values = []
        for piece in pieces:
            value = self._element(piece)
            values.extend(value.items if isinstance(value, Listing) and not value.braces else (value,))
        return Listing(tuple(values), True)

    def _built(self, left: list[Token], right: list[Token]):
        """`{x | x > 2}`: what the condition says of the variable."""
        sides, operators = cutting.split(left, (r"\in",))
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
        if len(last) > 1 and (match := cutting.HALVES.fullmatch("".join(part.text for part in last[1:]).strip())):
            half, last = match[1].lower(), last[:1]
        pieces = [*pieces[:-1], last]
        values = []
        for piece in pieces:
            value = expressions.read(piece, self.plain)
            if not arithmetic.is_formula(value) or value == 0:
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
            parts, unit = cutting.without_unit(parts)
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


def as_set(value) -> RealSet | None:
    """An interval or a set of numbers as a union of pieces, else None. Raises Unread for ends in no order."""
    if isinstance(value, RealSet):
        return value
    if isinstance(value, Bracketed) and len(value.items) == 2:
        ends = [item.value for item in value.items if isinstance(item, Expression) and item.unit is None]
        if len(ends) == 2 and all(arithmetic.is_formula(end) for end in ends):
            return sets.interval(ends[0], value.left == "(", ends[1], value.right == ")")
    if isinstance(value, Listing) and value.braces and all(isinstance(item, Expression) for item in value.items):
        return RealSet(tuple(sets.point(item.value) for item in value.items))
    return None


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
