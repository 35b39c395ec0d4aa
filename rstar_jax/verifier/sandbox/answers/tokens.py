"""Splits LaTeX, or the plain way of writing mathematics, into tokens. No sign of a text is lost."""

import re
from typing import NamedTuple


class Unread(ValueError):
    """A text, or a part of it, that was not understood."""


class Token(NamedTuple):
    """kind: number, letter, word (two plain letters or more), text (what \\text holds), command, begin, end or sign.

    gap: whether something blank stands before it.
    """

    kind: str
    text: str
    gap: bool = False

    def __repr__(self) -> str:
        return self.text


_THOUSANDS = r"\d{1,3}(?:(?:\{,\}|,\\!)\s*\d{3})+(?!\d)|\d{1,3}(?:(?:\\,|\\ |\\;|\\!|~| )\d{3})+(?![\d/])(?! \d)"
_POINTS = r"\d{1,3}(?:\.\d{3})+,\d+"
_PLAIN = r"(?:\d+\.\d+|\d+\.(?![\d.])|\.\d+|\d+)"
_NUMBER = re.compile(rf"{_POINTS}|(?:{_THOUSANDS})(?:\.\d+)?|{_PLAIN}(?:[eE](?:[+-]\d+|\d+)(?![\w.]))?", re.ASCII)
_BLANK = re.compile(
    r"(?:\s|\\[,;:!> ]|~|\\(?:quad|qquad|displaystyle|textstyle|limits|nolimits|mathstrut|boldsymbol|bm|left|right"
    r"|middle"
    r"|[bB]igg?[lrm]?|thinspace|enspace|hfill|newline|scriptstyle|strut)(?![A-Za-z])(?:\s*\.(?=\s*$|\\|\s*\$))?"
    r"|\\hspace\*?\{[^{}]*\})+"
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([A-Za-z]+)\*?\}(?:\s*\{([lcr|@{}. ]*)\})?")
_TEXT = re.compile(
    r"\\(text|textbf|textit|textrm|texttt|textsf|textnormal|mbox|mathrm|mathbf|mathit|mathsf|mathtt|mathcal|mathfrak"
    r"|mathbb|mathscr|operatorname|rm|bf|hbox)\s*\*?\s*\{"
)
_ONE_LETTER = re.compile(r"\\(mathrm|mathbf|mathit|mathbb|mathcal)\s*([A-Za-z0-9])(?![A-Za-z])")
_ROW = re.compile(r"\\\\(?:\s*\[[^\[\]]*pt\])?|\\cr(?![A-Za-z])")
_COMMAND = re.compile(r"\\([A-Za-z]+)|\\(.)")
_LETTERS = re.compile(r"[A-Za-z]+")
_ALIKE = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le",
    "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "times": "*", "cdot": "*",
    "ast": "*", "div": "/", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "colon": ":",
    "varnothing": "emptyset", "lbrace": "{", "rbrace": "}", "backslash": "setminus", "land": "and", "wedge": "and",
    "lor": "or", "vee": "or", "lvert": "|", "rvert": "|", "vert": "|", "varphi": "phi", "varepsilon": "epsilon",
    "infinity": "infty", "simeq": "approx", "lbrack": "[", "rbrack": "]", "tg": "tan", "ctg": "cot", "arctg": "arctan",
    "degree": "degree", "lg": "lg", "textbar": "|", "cosec": "csc", "bigcup": "cup", "not": "not", "exist": "exists",
}  # fmt: skip
_SIGNS = frozenset("< > * / : | [ ]".split())
GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega vartheta ell".split()
)
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth log ln lg exp max min gcd lcm".split()
)
_KNOWN = (
    GREEK
    | FUNCTIONS
    | frozenset(_ALIKE)
    | frozenset(
        "frac sqrt binom pi infty le ge ne pm mp cup cap in notin mid equiv approx circ prime lfloor rfloor lceil "
        "rceil pmod bmod emptyset setminus forall sum prod int lim angle triangle overline bar vec hat to ldots "
        "rightarrow quad".split()
    )
)
# Names that are written without a backslash where there is no LaTeX.
_PLAIN_NAMES = FUNCTIONS | {"sqrt", "pi", "cbrt"}
_PLAIN_ALIKE = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "infinity": "infty",
    "inf": "infty",
    "oo": "infty",
}
_GLUED = re.compile(r"(or|and)([a-zA-Z])")  # a corpus without blanks writes x=1orx=2
_AFTER_NAME = frozenset("=<>\\_")
_LATIN_SETS = frozenset("RNZQC")


def split(text: str) -> list[Token]:
    """The tokens of `text`. Raises Unread for braces without a partner, and for signs of other alphabets."""
    tokens: list[Token] = []
    place, gap = 0, False
    while place < len(text):
        if match := _BLANK.match(text, place):
            place, gap = match.end(), True
            continue
        before = len(tokens)
        place = _next(text, place, tokens)
        if gap and len(tokens) > before:
            tokens[before] = tokens[before]._replace(gap=True)
        gap = False
    return _degrees(_delimited(tokens))


def _next(text: str, place: int, tokens: list[Token]) -> int:
    """Adds what stands at `place` to `tokens`; returns where it ends."""
    letter = text[place]
    if letter == "\\":
        return _command(text, place, tokens)
    if (letter.isdigit() or letter == ".") and (match := _NUMBER.match(text, place)):
        tokens.append(Token("number", match[0]))
        return match.end()
    if match := _LETTERS.match(text, place):
        _letters(match[0], text, place, tokens)
        return match.end()
    for long in ("...", "**", "<=", ">=", "!=", "==", "''"):
        if text.startswith(long, place):
            short = {"...": "\\ldots", "**": "^", "<=": "\\le", ">=": "\\ge", "!=": "\\ne", "==": "="}.get(long)
            if short is not None:
                tokens.append(Token("command" if short[0] == "\\" and len(short) > 1 else "sign", short))
                return place + len(long)
    if letter.isascii() or letter in "€£¥₹¢":
        tokens.append(Token("sign", letter))
    elif letter.isalpha():
        tokens.append(Token("word", letter))
    else:
        raise Unread(f"the sign {letter!r}")
    return place + 1


def _command(text: str, place: int, tokens: list[Token]) -> int:
    if match := _ROW.match(text, place):
        tokens.append(Token("sign", r"\\"))
        return match.end()
    if match := _ENVIRONMENT.match(text, place):
        tokens.append(Token(match[1], match[2]))
        if match[3] is not None and match[2] not in ("array", "tabular"):
            return match.end(2) + 1 + (text[match.end(2) : match.end(2) + 1] == "*")
        return match.end()
    if match := _ONE_LETTER.match(text, place):
        _styled(match[1], match[2], tokens)
        return match.end()
    if match := _TEXT.match(text, place):
        end = _brace(text, match.end())
        _styled(match[1], text[match.end() : end], tokens)
        return end + 1
    match = _COMMAND.match(text, place)
    if match is None:
        raise Unread("a backslash at the end")
    if match[2] is not None:
        if match[2] in "()[]":
            tokens.append(Token("command", "\\" + match[2]))  # delimiters: `_delimited` takes them
        elif match[2] in "{}":
            tokens.append(Token("command", "\\" + match[2]))
        elif match[2] in "%$":
            tokens.append(Token("sign", "\\$" if match[2] == "$" else "%"))
        else:
            raise Unread(f"\\{match[2]}")
        return match.end()
    name = match[1]
    end = match.end()
    if name not in _KNOWN:
        # A corpus without blanks writes \pmx for \pm x: the longest command that is known, and letters.
        known = next((name[:size] for size in range(len(name) - 1, 1, -1) if name[:size] in _KNOWN), None)
        if known is not None and len(name) - len(known) <= 2 and name != "thetas":
            name, end = known, place + 1 + len(known)
    name = _ALIKE.get(name, name)
    if name == "quad":
        return end
    if name in _SIGNS:
        tokens.append(Token("sign", name))
    elif name in ("and", "or"):
        tokens.append(Token("text", name))
    else:
        tokens.append(Token("command", "\\" + name))
    return end


def _styled(style: str, content: str, tokens: list[Token]) -> None:
    """What a command that sets a style of writing means: \\mathrm{e} is e, \\mathbf{5} is 5, \\mathbb{R} a set."""
    bare = content.strip().strip("~").strip()
    if style in ("mathbb", "mathbf") and bare in _LATIN_SETS:
        tokens.append(Token("command", rf"\mathbb{{{bare}}}"))
    elif re.fullmatch(r"\d+(\.\d+)?", bare, re.ASCII) and style not in ("mathbb", "mathcal", "mathfrak"):
        tokens.append(Token("number", bare))
    elif bare.replace(" ", "") in FUNCTIONS - {"min", "sec"} and style in (
        "mathrm",
        "operatorname",
        "text",
        "rm",
        "mbox",
    ):
        tokens.append(Token("command", "\\" + bare.replace(" ", "")))
    elif style in ("mathrm", "rm") and bare in ("e", "i", "d"):
        tokens.append(Token("letter", bare))
    elif style == "mathit" and len(bare) == 1 and bare.isalpha():
        tokens.append(Token("letter", bare))
    elif style in ("mathbb", "mathcal", "mathfrak", "mathscr", "mathbf") and len(bare) == 1 and bare.isalpha():
        tokens.append(Token("letter", rf"\{style}{{{bare}}}"))
    elif style == "operatorname":
        tokens.append(Token("command", "\\" + bare))
    elif bare or content:
        tokens.append(Token("text", content))


def _letters(run: str, text: str, place: int, tokens: list[Token]) -> None:
    """Plain letters: a name that is known, one letter, or a word."""
    known = _PLAIN_ALIKE.get(run, run)
    if known in _PLAIN_NAMES or known == "infty":
        tokens.append(Token("command", "\\" + known))
    elif len(run) == 1:
        tokens.append(Token("letter", run))
    elif (match := _GLUED.fullmatch(run)) and text[place + len(run) :].lstrip()[:1] in _AFTER_NAME:
        tokens.extend((Token("word", match[1]), Token("letter", match[2])))
    else:
        tokens.append(Token("word", run))


def _brace(text: str, start: int) -> int:
    depth = 1
    for place in range(start, len(text)):
        if text[place - 1] != "\\":
            depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    raise Unread("a brace is never closed")


def _delimited(tokens: list[Token]) -> list[Token]:
    """Without the delimiters of formulas: they end a part, and what stands outside of them is text.

    A dollar that has no partner and stands before a number is a currency.
    """
    marks = [place for place, token in enumerate(tokens) if token == Token("sign", "$", token.gap)]
    others = [token for token in tokens if token.text in (r"\(", r"\)", r"\[", r"\]")]
    if not marks and not others:
        return tokens
    if len(marks) == 1 and not others:
        tokens[marks[0]] = Token("sign", "\\$", tokens[marks[0]].gap)
        return tokens
    parts: list[Token] = []
    inside = False
    for token in tokens:
        if token.text in ("$", r"\(", r"\)", r"\[", r"\]"):
            inside = not inside
            if parts and parts[-1].kind != "end of formula":
                parts.append(Token("end of formula", ""))
        elif not inside and token.kind in ("letter", "word"):
            parts.append(Token("text", token.text, token.gap))
        else:
            parts.append(token)
    while parts and parts[-1].kind == "end of formula":
        parts.pop()
    # Only beside a text or a comma does a formula end without a doubt: `$4$ $5$` is not 45.
    kept: list[Token] = []
    for place, token in enumerate(parts):
        if token.kind == "end of formula":
            around = (parts[place - 1], parts[place + 1])
            if not any(other.kind == "text" or other.text in (",", ";") for other in around):
                raise Unread("formulas side by side")
        else:
            kept.append(token)
    return kept


def _degrees(tokens: list[Token]) -> list[Token]:
    """With `^{\\circ}` as one sign, and `^{\\prime}` as a prime."""
    kept: list[Token] = []
    for token in tokens:
        kept.append(token)
        for size in (2, 4):
            last = [other.text for other in kept[-size:]]
            if last in (["^", r"\circ"], ["^", "{", r"\circ", "}"], ["^", r"\degree"], ["^", "{", r"\degree", "}"]):
                kept[-size:] = [Token("sign", "°", kept[-size].gap)]
            elif last in (["^", r"\prime"], ["^", "{", r"\prime", "}"], ["^", "'"]):
                kept[-size:] = [Token("sign", "'", kept[-size].gap)]
        if token.text == r"\degree":
            kept[-1] = Token("sign", "°", token.gap)
        if [other.text for other in kept[-4:]] == ["^", "{", "'", "}"]:
            kept[-4:] = [Token("sign", "'", kept[-4].gap)]
    return kept


def bare(text: str) -> str:
    """`text` without blanks and sizes, for what has no tokens."""
    return re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", _BLANK.sub("", text))


def canonical(tokens: list[Token]) -> tuple[str, ...]:
    """The texts of tokens, the same for the same formula in other dress: no braces around a single sign."""
    texts: list[str] = []
    for token in tokens:
        texts.append(token.text.strip() if token.kind == "text" else token.text)
        if len(texts) > 2 and texts[-3] == "{" and texts[-1] == "}" and len(texts[-2]) == 1:
            texts[-3:] = [texts[-2]]
    return tuple(texts)
