"""Reads and writes the text of steps: their code, their output, their boxed answer."""

import re
from collections.abc import Iterator

from rstar_jax.trajectory import markers

# What others say can look like a token of ours, or like one of those that models of others end their turns with.
_SPECIAL = re.compile(
    "<(?=" + "|".join(re.escape(name[1:]) for name in markers.SPECIAL_TOKENS) + r"|\|[^<>|\s]*\|>|/?s>)"
)
_SHOWN = re.compile(rf"\n?{markers.OUTPUT}.*?(?:{markers.END_OF_OUTPUT}|\Z)", re.DOTALL)
_BOX = "\\boxed{"


def quoted(text: str) -> str:
    """`text` of a question or a program, in which nothing is a marker: `<code>` becomes `< code>`."""
    return _SPECIAL.sub("< ", text)


def prompt(question: str) -> str:
    """The zero-shot prompt of policy and PPM. The same bytes in training and in search (the released code differs)."""
    asked = f"{markers.USER}:\n{quoted(question)}\n{markers.ASSISTANT}:"
    return f"{asked} Let's think step by step and solve the problem with code."


def code(text: str) -> str:
    """The Python code of one step's `text`: everything but the markers and what follows `<end_of_code>`."""
    text = text.split(markers.END_OF_CODE)[0]
    return text.replace(markers.CODE, "").replace(markers.END_OF_STEP, "\n").strip("\n")


def with_output(text: str, output: str) -> str:
    """Appends the program's printed `output` to a step that closed its code block."""
    return f"{text}\n{markers.OUTPUT}{quoted(output)}{markers.END_OF_OUTPUT}"


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """(piece, whether the policy wrote it) of a response, in order; it did not write outputs and their newline."""
    at = 0
    for shown in _SHOWN.finditer(text):
        if shown.start() > at:
            yield text[at : shown.start()], True
        yield shown[0], False
        at = shown.end()
    if at < len(text):
        yield text[at:], True


def boxed(answer: str) -> str:
    """The answer step that states `answer`."""
    return f"\n{markers.ANSWER}\\boxed{{{answer}}}{markers.END_OF_ANSWER}"


def boxed_answer(text: str) -> str | None:
    """The content of the last `\\boxed{...}` whose braces match, or None. An escaped brace is no brace."""
    start = text.rfind(_BOX)
    while start >= 0:
        content = _braced(text, start + len(_BOX))
        if content is not None:
            return content.strip()
        start = text.rfind(_BOX, 0, start)
    return None


def _braced(text: str, begin: int) -> str | None:
    """What stands between a brace, opened just before `begin`, and its partner."""
    depth, place = 1, begin
    while place < len(text):
        if text[place] == "\\":
            place += 1
        else:
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                return text[begin:place]
        place += 1
    return None
