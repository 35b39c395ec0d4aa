"""Real golds in other dress, and with one sign of them changed."""

import random
import re
from collections.abc import Iterator

from rstar_jax.verifier.sandbox.answers import dress, tokens

_OPERATORS = "+-*/<>="
_BRACKETS = {"(": "[", "[": "(", ")": "]", "]": ")"}
_WORDS = re.compile(r"\\[A-Za-z]+|\\.")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def dressed(gold: str) -> Iterator[str]:
    """`gold` as others would write it."""
    bare = gold.strip(" \n")  # a form feed is what is left of \\frac in some
    if bare.endswith("\\"):
        return
    if "$" not in bare and "\\(" not in bare and "\\[" not in bare and "####" not in bare:
        yield f"${bare}$"
        yield f"$${bare}$$"
        yield rf"\({bare}\)"
        yield f"\\[\n{bare}\n\\]"
        if bare.count("{") == bare.count("}"):
            yield rf"\boxed{{{bare}}}"
            yield rf"The answer is \boxed{{{bare}}}."
        yield f"The answer is ${bare}$."
    yield f"  {bare}.\n" if not bare.endswith((".", "\\")) else f"  {bare}\n"
    yield re.sub(r"\\frac(?![A-Za-z])", r"\\dfrac", bare)
    yield re.sub(r"\\d?frac(?![A-Za-z])", r"\\tfrac", bare)
    # Brackets of every size; blanks around operators and behind braces.
    if not re.search(r"\\left|\\right|\\text|\$|\\[(\[]|[a-z]{5}|[A-Z]{2}", bare) and bare.count("(") == bare.count(
        ")"
    ):
        yield re.sub(r"(?<!\\)\(", r"\\left( ", re.sub(r"(?<!\\)\)", r" \\right)", bare))
    if not re.search(r"\\text|\\math|\\operatorname|\\begin|\\mbox|\\\[|\\\(|\$", bare):
        yield re.sub(r"(?<=[\w})\]])([+=<>])(?=[\w({\[\\])", r" \1 ", bare)


def mutated(gold: str, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Kinds of change, and `gold` after each: one digit, sign, operator, bracket, letter or element is another."""
    # -0 is 0, 0x is 0, -x is not 0 either; and powers of -1 and i come round.
    zero = "\\ne" in gold or re.search(r"(?<![\d.])0(?!\.?\d)|\(-1\)\^|i\^", gold)
    commands = [range(match.start(), match.end()) for match in _WORDS.finditer(gold)]
    free = [place for place in range(len(gold)) if not any(place in command for command in commands)]

    def put(place: int, text: str) -> str:
        return gold[:place] + text + gold[place + 1 :]

    digits = [place for place in free if gold[place].isdigit()]
    if digits and not re.search(r"\(-1\)\^|i\^", gold):
        place = draw.choice(digits)
        yield "digit", put(place, draw.choice([digit for digit in "123456789" if digit != gold[place]]))
        yield "digit more", put(place, gold[place] + draw.choice("123456789"))
    operators = [place for place in free if gold[place] in _OPERATORS]
    if operators and not zero:
        place = draw.choice(operators)
        yield "operator", put(place, draw.choice([sign for sign in "+-*" if sign != gold[place]]))
    if (
        not gold.strip().startswith(("-", "\\pm", "\\mp"))
        and gold.strip() != "\\infty"
        and not zero
        and "\\ne" not in gold
    ):
        yield "sign", "-" + gold.strip()
    brackets = [place for place in free if gold[place] in _BRACKETS]
    if brackets:
        place = draw.choice(brackets)
        yield "bracket", put(place, _BRACKETS[gold[place]])
    letters = [place for place in free if gold[place] in _LETTERS]
    if letters:
        place = draw.choice(letters)
        yield (
            "letter",
            put(place, draw.choice([letter for letter in _LETTERS if letter.lower() != gold[place].lower()])),
        )
    if (commas := [place for place in free if gold[place] == ","]) and not re.search(r"\d,(\\!)?\d{3}|[a-z]{3}", gold):
        place = draw.choice(commas)
        yield "element more", put(place, ",77,")
        yield "element less", gold[:place]
        yield "comma", put(place, draw.choice(("", "+", ".")))
    swap = {r"\frac": r"\binom", r"\sqrt": r"\ln", r"\sin": r"\cos", r"\le": r"\ge", r"\cup": r"\cap", r"\pi": r"\phi"}
    names = [command for command in commands if gold[command.start : command.stop] in swap]
    if names:
        command = draw.choice(names)
        yield "command", gold[: command.start] + swap[gold[command.start : command.stop]] + gold[command.stop :]
    if not zero:
        yield "factor", gold + "x"
    yield "word", gold + r"\text{ less}"
    yield "prime", gold + "'"
    yield "subscript", gold + "_7"


def same_signs(one: str, other: str) -> bool:
    """Whether a change changed nothing: it hit a blank, or dress."""
    try:
        return tokens.canonical(tokens.split(dress.taken_off(one))) == tokens.canonical(
            tokens.split(dress.taken_off(other))
        )
    except tokens.Unread:
        return one.split() == other.split()
