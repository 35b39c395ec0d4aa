"""Takes off what surrounds an answer without being part of it, and turns Unicode forms into LaTeX."""

import re

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n", strict=True))
_VULGAR = dict(
    zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "12 13 23 14 34 15 25 35 45 16 56 18 38 58 78".split(), strict=True),
)
_GREEK = (
    "α alpha β beta γ gamma δ delta ε epsilon ζ zeta η eta θ theta λ lambda μ mu ν nu ξ xi π pi ρ rho σ sigma τ tau "
    "φ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Π Pi Σ Sigma Φ Phi Ψ Psi Ω Omega"
).split()
_SIGNS = {
    **{sign: "-" for sign in "−–‒﹣"},
    **{sign: " " for sign in "\u00a0\u2009\u202f\u2007\u2002\u2003\u3000\t\n\r\f\v"},
    **{sign: "'" for sign in "′’‘"},
    **{sign: '"' for sign in "“”"},
    **dict(zip(_GREEK[::2], (rf"\{name} " for name in _GREEK[1::2]), strict=True)),
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "∓": r"\mp ",
    "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ",
    "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "√": r"\sqrt ", "∛": r"\sqrt[3]",
    "°": r"^{\circ}", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "…": r"\ldots ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "；": ";", "，": ",", "：": ":", "（": "(", "）": ")", "∠": r"\angle ", "△": r"\triangle ", "∀": r"\forall ",
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_SUPERSCRIPT = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_SUBSCRIPT = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR_FRACTION = re.compile(f"[{''.join(_VULGAR)}]")
# What is left of LaTeX that was written into a string without its backslashes doubled, or doubled twice.
_ESCAPES = {"\t": "t", "\f": "f", "\b": "b", "\r": "r"}
_ESCAPE = re.compile(r"\t(?=ext|imes|frac|heta)|\f(?=rac)|[\b](?=oxed|inom|egin|ar)|\r(?=ight)")
_TWO_BACKSLASHES = re.compile(r"\\\\(?=[A-Za-z])")
_INTRODUCTION = re.compile(
    r"(?:(?:so|thus|hence|therefore),? )?(?:(?:the|our|my) )?(?:(?:final|correct|right) )?(?:answer|solution|result)"
    r"(?: to the (?:problem|question))?(?: is|:| is:|=)\s*(?=\S)|(?:answer|ans)\s*[:=]\s*(?=\S)",
    re.IGNORECASE,
)
_PAIRS = (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"), ("**", "**"), ('"', '"'), ("`", "`"))
_BOXES = (r"\boxed{", r"\fbox{", r"\boxed {")
_ENDS = (".", "\\,", "\\;", "\\!", "\\ ", "~", "\\quad", "\\qquad")
_STARTS = (r"\displaystyle", "\\,", "\\;", "\\!", "\\ ", "~", r"\quad", r"\qquad")


def taken_off(text: str) -> str:
    """`text` without delimiters of its own, an introduction, a final full stop; in LaTeX, on one line."""
    text = _latex(text)
    if "####" in text:  # a solution of GSM8K: what stands behind the last mark is its answer
        text = text[text.rindex("####") + 4 :]
    before = None
    while text != before:
        before = text
        text = _once(text.strip())
    return text


def _latex(text: str) -> str:
    text = _ESCAPE.sub(lambda match: "\\" + _ESCAPES[match[0]], text)
    if r"\begin" not in text:
        text = _TWO_BACKSLASHES.sub(r"\\", text)
    text = _VULGAR_FRACTION.sub(lambda match: rf"\frac{{{_VULGAR[match[0]][0]}}}{{{_VULGAR[match[0]][1]}}}", text)
    text = _SUPERSCRIPT.sub(lambda match: "^{" + "".join(_SUPERSCRIPTS[sign] for sign in match[0]) + "}", text)
    text = _SUBSCRIPT.sub(lambda match: "_{" + "".join(_SUBSCRIPTS[sign] for sign in match[0]) + "}", text)
    return _SIGN.sub(lambda match: _SIGNS[match[0]], text)


def _once(text: str) -> str:
    if match := _INTRODUCTION.match(text):
        return text[match.end() :]
    for start, end in _PAIRS:
        inner = text[len(start) : -len(end)]
        if len(text) > len(start) + len(end) and text.startswith(start) and text.endswith(end):
            if start not in inner and end not in inner and not inner.endswith("\\"):
                return inner
    for box in _BOXES:
        if text.startswith(box) and text.endswith("}") and _closes(text, len(box)) == len(text) - 1:
            return text[len(box) : -1]
    for end in _ENDS:
        if text.endswith(end) and not text.endswith(("..", "\\" + end)) and len(text) > len(end):
            return text[: -len(end)]
    for start in _STARTS:
        if text.startswith(start) and not text[len(start) : len(start) + 1].isalpha():
            return text[len(start) :]
    return text


def _closes(text: str, start: int) -> int:
    """Where the brace closes that was opened just before `start`; -1 if it never does."""
    depth, place = 1, start
    while place < len(text):
        letter = text[place]
        if letter == "\\":
            place += 1
        else:
            depth += (letter == "{") - (letter == "}")
            if depth == 0:
                return place
        place += 1
    return -1
