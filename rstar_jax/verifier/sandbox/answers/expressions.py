"""Reads a formula into sympy by recursive descent. A token that does not fit is Unread; none is skipped.

Where usage is divided (`1/2x`, `2\\frac{3}{2}`, `x^10` in LaTeX) nothing is read either.
"""

from collections.abc import Callable

import sympy

from . import arithmetic
from .tokens import FUNCTIONS, GREEK, Token, Unread, canonical

DEGREE = sympy.Symbol("°", positive=True)  # of an angle; what it stands for is decided where values are compared
LOG = sympy.Symbol("1/ln(base)", positive=True)  # \log without a base is this times the natural one
_TERMS = 200
_OPENERS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_NO_PRODUCTS = frozenset(
    "and or per for the is of if no yes not all any one two six ten none even odd less more only each both with than "
    "mod deg km cm mm kg ml am pm hr hrs sec min in ft yd mi lb oz day days year nan true inf case else then when from "
    "to by at as an on it be so we he do up go my us".split()
)
_PLAIN_FUNCTIONS: dict[str, Callable] = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "sinh": sympy.sinh,
    "cosh": sympy.cosh, "tanh": sympy.tanh, "coth": sympy.coth, "ln": sympy.log, "exp": sympy.exp,
    "lg": lambda x: sympy.log(x) / sympy.log(10), "log": lambda x: LOG * sympy.log(x),
}  # fmt: skip
_TRIGONOMETRIC = frozenset("sin cos tan cot sec csc".split())
_INVERSES = {"sin": sympy.asin, "cos": sympy.acos, "tan": sympy.atan, "cot": sympy.acot}
_OF_SEVERAL = {"max": sympy.Max, "min": sympy.Min, "gcd": sympy.gcd, "lcm": sympy.lcm}
_ACCENTS = frozenset(r"\bar \vec \hat \tilde \overline \overrightarrow \widehat \dot \widetilde \ddot".split())
_MATRICES = frozenset("pmatrix bmatrix matrix Bmatrix array smallmatrix".split())


def spread(tokens: list[Token]) -> list[Token]:
    """Short words become letters, as in `2ab` or `xyz + 1`; a word that only words have stays, and is not read."""
    letters: list[Token] = []
    for place, token in enumerate(tokens):
        apart = token.gap and place > 0 and tokens[place - 1].kind in ("number", "letter", "word")
        if (
            token.kind != "word"
            or len(token.text) > 4
            or token.text.lower() in _NO_PRODUCTS
            or not token.text.isascii()
        ):
            letters.append(token)
        elif apart and len(token.text) > 2:
            letters.append(token)
        else:
            letters.append(Token("letter", token.text[0], token.gap))
            letters.extend(Token("letter", letter) for letter in token.text[1:])
    return letters


def closing(tokens: list[Token], start: int) -> int:
    """Where the bracket at `start` is closed; brackets may be of two kinds, as in an interval. Raises Unread."""
    depth = 0
    for place in range(start, len(tokens)):
        token = tokens[place]
        if token.kind == "begin" or token.text in _OPENERS:
            depth += 1
        elif token.kind == "end" or token.text in _OPENERS.values():
            depth -= 1
            if depth == 0:
                return place
    raise Unread("a bracket is never closed")


def read(tokens: list[Token], plain: bool = False) -> sympy.Expr | sympy.MatrixBase:
    """The formula that all of `tokens` make. plain: not LaTeX, where x^10 has the exponent 10. Raises Unread."""
    reader = _Reader(spread(tokens), plain)
    value = reader.sum()
    if reader.place != len(reader.tokens):
        raise Unread(f"{reader.peek().text!r} is left over")
    if arithmetic.is_formula(value) and value.has(sympy.nan, sympy.zoo):
        raise Unread("not a number")
    return value


def names_one(tokens: list[Token]) -> str | None:
    """The name, where `tokens` are a variable alone, with its subscripts and primes."""
    if not tokens or len(tokens) > 12 or tokens[0].kind not in ("letter", "command"):
        return None
    try:
        value = read(tokens)
    except Unread:
        return None
    return value.name if isinstance(value, sympy.Symbol) and value not in (DEGREE, LOG) else None


class _Reader:
    def __init__(self, tokens: list[Token], plain: bool):
        self.tokens = tokens
        self.place = 0
        self.plain = plain

    def peek(self, ahead: int = 0) -> Token:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else Token("end of text", "")

    def take(self) -> Token:
        token = self.peek()
        self.place += 1
        return token

    def at(self, *texts: str) -> bool:
        token = self.peek()
        return token.kind in ("sign", "command") and token.text in texts

    def expect(self, text: str) -> None:
        if not self.at(text):
            raise Unread(f"expected {text!r}, found {self.peek().text!r}")
        self.place += 1

    # Sums and products.

    def sum(self):
        value = self._signed()
        while self.at("+", "-"):
            minus = self.take().text == "-"
            term = self._product()
            value = arithmetic.add(value, arithmetic.multiply(-1, term) if minus else term)
        return value

    def _signed(self):
        if self.at("-"):
            self.place += 1
            return arithmetic.multiply(-1, self._product())
        if self.at("+"):
            self.place += 1
        return self._product()

    def _product(self):
        start = self.place
        value = self._mixed_number()
        mixed = value is not None
        if value is None:
            value = self._factor()
        while True:
            if self.at("*"):
                self.place += 1
                value = arithmetic.multiply(value, self._operand())
            elif self.at("/"):
                if self._ends_a_bare_argument(start):
                    raise Unread("what is divided, the function or its argument?")
                self.place += 1
                value = arithmetic.divide(value, self._operand())
                if self._begins_factor() or self.peek().kind == "number":
                    raise Unread("what stands under the stroke?")
            elif self._begins_factor() or self._is_a_later_number():
                if mixed:
                    raise Unread("a factor behind a mixed number")
                value = arithmetic.multiply(value, self._factor())
            else:
                return value
            mixed = False

    def _is_a_later_number(self) -> bool:
        """Whether a number is a factor of what stands before it: `(n-2)2^n`, `n 2^{n-1}`, never `x2` or `3 4`."""
        if self.peek().kind != "number" or self.tokens[self.place - 1].kind == "number":
            return False
        before = self.tokens[self.place - 1].text
        return before in (")", "]") or (self.peek(1).text == "^" and (before == "}" or self.peek().gap))

    def _operand(self):
        if self.at("-"):
            self.place += 1
            return arithmetic.multiply(-1, self._factor())
        return self._factor()

    def _ends_a_bare_argument(self, start: int) -> bool:
        """Whether the product so far ends in a function whose argument has no brackets, as in `\\sin x/2`."""
        for place in range(self.place - 1, start - 1, -1):
            token = self.tokens[place]
            if token.text in (")", "]", "}", "|", "*", "/"):
                return False
            if token.kind == "command" and token.text[1:] in FUNCTIONS:
                return True
        return False

    def _begins_factor(self) -> bool:
        token = self.peek()
        if token.kind == "letter":
            return True
        if token.kind == "begin":
            return token.text in _MATRICES
        if token.kind == "command":
            name = token.text[1:]
            return (
                name in GREEK
                or name in FUNCTIONS
                or name in ("sum", "prod", "frac", "sqrt", "cbrt", "binom", "pi", "infty", "lfloor", "lceil")
                or token.text in _ACCENTS
            )
        return token.kind == "sign" and token.text in ("(", "[", "{")

    def _mixed_number(self):
        """A whole number and a proper fraction behind it, or None, with nothing taken."""
        first = self.peek()
        if first.kind != "number" or not first.text.isdigit():
            return None
        start = self.place
        self.place += 1
        if self.at(r"\frac"):
            self.place += 1
            parts = self._argument(), self._argument()
            if not all(isinstance(part, sympy.Integer) for part in parts):
                self.place = start
                return None
            if not 0 < parts[0] < parts[1]:
                raise Unread("a mixed number, or a product?")
        elif self.peek().kind == "number" and self.peek().gap and self.peek(1).text == "/":
            top, bottom = self.peek(), self.peek(2)
            if not (top.text.isdigit() and bottom.text.isdigit() and 0 < int(top.text) < int(bottom.text)):
                raise Unread("two numbers side by side")
            self.place += 3
            parts = int(top.text), int(bottom.text)
        else:
            self.place = start
            return None
        return arithmetic.integer(first.text) + sympy.Rational(*parts)

    # Factors.

    def _factor(self):
        value = self._primary()
        while True:
            if self.at("!"):
                self.place += 1
                if self.at("!"):
                    self.place += 1
                    if not arithmetic.is_formula(value) or value.is_number:
                        raise Unread("a double factorial")
                    value = sympy.factorial2(value)
                else:
                    value = arithmetic.factorial(value)
            elif self.at("^"):
                self.place += 1
                value = arithmetic.power(value, self._exponent())
                if self.at("^"):
                    raise Unread("two exponents")
            elif self.at("°"):
                self.place += 1
                value = arithmetic.multiply(value, DEGREE)
            else:
                return value

    def _exponent(self):
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1 and not self.plain:
            raise Unread("how much of the number is the exponent?")
        if token.text in ("{", "("):
            return self._group()
        if token.kind in ("number", "letter"):
            return self._atom()
        if token.text in (r"\pi", r"\frac", r"\infty", r"\sqrt") or token.text[1:] in GREEK:
            return self._primary()
        raise Unread("an exponent")

    def _atom(self):
        """A number or a letter alone, without what may be applied to it."""
        token = self.take()
        return arithmetic.number(token.text) if token.kind == "number" else arithmetic.letter(token.text)

    def _group(self):
        opener = self.take().text
        value = self.sum()
        self.expect(_OPENERS[opener])
        return value

    def _argument(self):
        """The argument of a command: a group, or one digit or letter."""
        token = self.peek()
        if token.text == "{" and token.kind == "sign":
            return self._group()
        if token.kind == "number":
            if not token.text.isdigit():
                raise Unread("an argument that is a decimal")
            self.tokens[self.place] = token._replace(text=token.text[1:], gap=False)
            if len(token.text) == 1:
                self.place += 1
            return arithmetic.integer(token.text[0])
        if token.kind == "letter":
            self.place += 1
            return arithmetic.letter(token.text)
        if token.kind == "command" and (token.text[1:] in GREEK or token.text in (r"\pi", r"\sqrt", r"\frac")):
            return self._primary()
        raise Unread("an argument")

    def _primary(self):
        token = self.peek()
        if token.kind == "number":
            return self._numeral()
        if token.kind == "letter":
            return self._symbol()
        if token.kind == "begin" and token.text in _MATRICES:
            return self._matrix()
        if token.kind == "sign" and token.text in ("(", "[", "{"):
            return self._group()
        if self.at("|"):
            self.place += 1
            value = self._until("|")
            if not arithmetic.is_formula(value):
                raise Unread("a determinant")
            return sympy.Abs(value)
        if token.kind != "command":
            raise Unread(f"{token.text!r}")
        name = token.text[1:]
        if name in FUNCTIONS:
            self.place += 1
            return self._function(name)
        if name in GREEK or token.text in _ACCENTS:
            return self._symbol()
        self.place += 1
        match name:
            case "pi":
                return sympy.pi
            case "infty":
                return sympy.oo
            case "frac":
                return self._fraction()
            case "sqrt":
                return self._root()
            case "cbrt":
                return arithmetic.power(self._group(), sympy.Rational(1, 3))
            case "binom":
                return arithmetic.binomial(self._argument(), self._argument())
            case "sum" | "prod":
                return self._series(name)
            case "lfloor":
                return sympy.floor(self._until(r"\rfloor"))
            case "lceil":
                return sympy.ceiling(self._until(r"\rceil"))
        raise Unread(token.text)

    def _until(self, closer: str):
        value = self.sum()
        self.expect(closer)
        return value

    def _numeral(self):
        text = self.take().text
        if self.at(r"\overline", r"\bar", r"\dot") and "." in text and not self.peek().gap:
            self.place += 1
            self.expect("{")
            digits = self.take()
            self.expect("}")
            if digits.kind != "number" or not digits.text.isdigit():
                raise Unread("a period of a decimal")
            whole, _, fixed = text.partition(".")
            nines = (10 ** len(digits.text) - 1) * 10 ** len(fixed)
            return sympy.Rational(f"{whole or 0}.{fixed or 0}") + sympy.Rational(int(digits.text), nines)
        if self.at("_"):
            raise Unread("a base inside a formula")
        value = arithmetic.number(text)
        if self.peek().kind == "number":
            raise Unread("two numbers side by side")
        return value

    def _symbol(self):
        """A letter with its accent, subscripts and primes; a function applied, where a letter is one."""
        token = self.take()
        if token.text in _ACCENTS:
            end = closing(self.tokens, self.place) if self.at("{") else self.place
            inner = self.tokens[self.place : end + 1]
            if not inner or not all(other.kind in ("letter", "sign") for other in inner):
                raise Unread(token.text)
            self.place = end + 1
            name = token.text + "{" + "".join(other.text for other in inner if other.text not in "{}") + "}"
        else:
            name = token.text
        plain = name
        while self.at("_", "'"):
            if self.take().text == "'":
                name += "'"
            else:
                name += "_{" + self._subscript() + "}"
        if self.at("^") and (primes := self._primes()):
            name += primes
        if self.at("(") and (value := self._applied(name)) is not None:
            return value
        return arithmetic.letter(name) if name == plain else sympy.Symbol(name)

    def _subscript(self) -> str:
        token = self.peek()
        if token.text == "{" and token.kind == "sign":
            end = closing(self.tokens, self.place)
            inner = canonical(self.tokens[self.place + 1 : end])
            self.place = end + 1
            return "".join(inner)
        if token.kind in ("number", "letter", "text") or token.text[1:] in GREEK:
            self.place += 1
            if token.kind == "number" and len(token.text) > 1 and not self.plain:
                raise Unread("how much of the number is the subscript?")
            return token.text
        raise Unread("a subscript")

    def _primes(self) -> str:
        """Primes that are written as an exponent, `^{\\prime\\prime}`."""
        if self.peek(1).text != "{":
            return ""
        end = closing(self.tokens, self.place + 1)
        inner = [token.text for token in self.tokens[self.place + 2 : end]]
        if not inner or any(text not in (r"\prime", "'") for text in inner):
            return ""
        self.place = end + 1
        return "'" * len(inner)

    def _applied(self, name: str):
        """`f(x)`; None where the letter is a factor of the bracket. A(5) and C(5, 2) are no products either."""
        end = closing(self.tokens, self.place)
        inner = self.tokens[self.place + 1 : end]
        base = name.rstrip("'").partition("_")[0]
        several = any(token.text == "," for token in inner)
        number = len(inner) == 1 and inner[0].kind == "number"
        greek = base[:1] == "\\" and base not in (r"\lambda", r"\alpha", r"\beta", r"\mu", r"\theta", r"\gamma")
        function = base in ("f", "g", "h", "F", "G", "H") or "'" in name
        if not (function or greek or ((several or number) and (base.isupper() or several))):
            return None
        arguments = self._several()
        if name == "C" and len(arguments) == 2:
            return arithmetic.binomial(*arguments)
        return sympy.Function(name)(*arguments)

    def _several(self) -> list:
        """The values between brackets and commas."""
        opener = self.take().text
        values = [self.sum()]
        while self.at(","):
            self.place += 1
            values.append(self.sum())
        self.expect(_OPENERS[opener])
        return values

    # Commands.

    def _fraction(self):
        derivative = self._derivative()
        if derivative is not None:
            return derivative
        return arithmetic.divide(self._argument(), self._argument())

    def _derivative(self):
        """`\\frac{d}{dx}` applied to the product behind it; None for a fraction of numbers."""
        texts = [token.text for token in self.tokens[self.place : self.place + 8]]
        if texts[:2] != ["{", "d"] or "{" not in texts[2:]:
            return None
        bottom = texts.index("{", 1)
        if texts[bottom + 1 : bottom + 2] != ["d"] or texts[bottom + 3 : bottom + 4] != ["}"]:
            return None
        if texts[2] != "}":
            raise Unread("a quotient of differentials")
        variable = arithmetic.letter(texts[bottom + 2])
        self.place += bottom + 4
        value = self._product()
        return sympy.diff(value, variable)

    def _series(self, name: str):
        """A sum or product over integers that are written out; the term is the product behind it."""
        limits = {}
        for _ in range(2):
            if not self.at("_", "^"):
                raise Unread(f"a {name} without limits")
            place = self.take().text
            limits[place] = self._limit()
        below, above = limits.get("_", []), limits.get("^", [])
        if len(below) < 3 or below[0].kind != "letter" or below[1].text != "=":
            raise Unread(f"the limits of a {name}")
        index = sympy.Symbol(below[0].text)
        first, last = read(below[2:], self.plain), read(above, self.plain)
        if not (first.is_Integer and last.is_Integer and 0 <= last - first < _TERMS):
            raise Unread(f"a {name} that is not written out")
        if self.at("-", "+"):
            raise Unread("a term with a sign")
        place = self.place
        if arithmetic.letter(below[0].text) != index:  # \sum_{i=1}^{3} i has no imaginary unit
            letter = Token("letter", r"\index{i}")
            self.tokens = [
                letter if one.text == below[0].text and at >= place else one for at, one in enumerate(self.tokens)
            ]
            index = sympy.Symbol(letter.text)
        term = self._product()
        if not arithmetic.is_formula(term):
            raise Unread(f"a {name} of matrices")
        values = [term.subs(index, value) for value in range(int(first), int(last) + 1)]
        return sympy.Add(*values) if name == "sum" else sympy.Mul(*values)

    def _limit(self) -> list[Token]:
        if not self.at("{"):
            return [self.take()]
        end = closing(self.tokens, self.place)
        inner = self.tokens[self.place + 1 : end]
        self.place = end + 1
        return inner

    def _root(self):
        degree = sympy.Integer(2)
        if self.at("["):
            self.place += 1
            degree = self._until("]")
        if self.at("("):
            inner = self._group()
        else:
            token = self.peek()
            if token.kind == "number" and len(token.text) > 1 and token.gap:
                inner = arithmetic.number(self.take().text)  # \sqrt 12, which only a reader of TeX takes for \sqrt{1}2
            elif token.kind == "number" and len(token.text) > 1:
                raise Unread("how much of the number is under the root?")
            else:
                inner = self._argument()
        return arithmetic.power(inner, 1 / degree)

    def _function(self, name: str):
        exponent = base = None
        while self.at("^", "_"):
            if self.take().text == "^":
                if exponent is not None:
                    raise Unread("two exponents")
                if self.peek().kind == "number" and len(self.peek().text) > 1:
                    exponent = self._argument()
                else:
                    exponent = self._exponent() if self.peek().text != "{" else self._group()
            elif name == "log" and base is None:
                base = self._argument()
            else:
                raise Unread("a subscript of a function")
        if name in _OF_SEVERAL:
            if exponent is not None or not self.at("(", r"\{"):
                raise Unread(name)
            values = self._several()
            if name in ("gcd", "lcm") and not all(isinstance(value, sympy.Integer) for value in values):
                raise Unread(name)
            return _OF_SEVERAL[name](*values) if name in ("max", "min") else arithmetic.fold(_OF_SEVERAL[name], values)
        function = _PLAIN_FUNCTIONS[name]
        if base is not None:
            function = lambda x: sympy.log(x) / sympy.log(base)  # noqa: E731
        argument = self._function_argument()
        if not arithmetic.is_formula(argument):
            raise Unread("a function of a matrix")
        if name in _TRIGONOMETRIC:
            argument = argument.subs(DEGREE, sympy.pi / 180) if argument.has(DEGREE) else argument
        if exponent == -1:
            if name not in _INVERSES:
                raise Unread("an inverse")
            return _INVERSES[name](argument)
        value = function(argument)
        return value if exponent is None else arithmetic.power(value, exponent)

    def _function_argument(self):
        if self.at("(", "[", "{"):
            value = self._group()
            if self.at("°"):
                self.place += 1
                value = arithmetic.multiply(value, DEGREE)
            return value
        if self.at("|"):
            return self._primary()
        if self.peek().kind == "command" and self.peek().text[1:] in FUNCTIONS:
            return self._factor()  # \ln \sin x
        value = self._factor()
        while self._begins_factor() and not self.at("(", "["):
            if self.peek().kind == "command" and self.peek().text[1:] in FUNCTIONS:
                break
            value = arithmetic.multiply(value, self._factor())
        return value

    def _matrix(self):
        kind = self.take().text
        rows: list[list] = [[]]
        while True:
            if self.at(r"\\"):
                self.place += 1
                rows.append([])
            elif self.peek().kind == "end":
                if self.peek().text != kind:
                    raise Unread("an environment with two names")
                break
            else:
                rows[-1].append(self.sum())
                if self.at("&"):
                    self.place += 1
                    if self.at(r"\\") or self.peek().kind == "end":
                        raise Unread("an element is missing")
        self.place += 1
        if not rows[-1]:
            rows.pop()
        if (
            not rows
            or len({len(row) for row in rows}) != 1
            or not all(arithmetic.is_formula(one) for one in sum(rows, []))
        ):
            raise Unread("a matrix whose rows differ in length")
        return sympy.ImmutableMatrix(rows)
