"""Reads and writes the text of steps: their code, their output, their boxed answer."""

from rstar_jax.trajectory import markers


def prompt(question: str) -> str:
    """The zero-shot prompt of policy and PPM. The same bytes in training and in search (the released code differs)."""
    return (
        f"{markers.USER}:\n{question}\n{markers.ASSISTANT}: Let's think step by step and solve the problem with code."
    )


def code(text: str) -> str:
    """The Python code of one step's `text`: everything but the markers and what follows `<end_of_code>`."""
    text = text.split(markers.END_OF_CODE)[0]
    return text.replace(markers.CODE, "").replace(markers.END_OF_STEP, "\n").strip("\n")


def with_output(text: str, output: str) -> str:
    """Appends the program's printed `output` to a step that closed its code block."""
    return f"{text}\n{markers.OUTPUT}{output}{markers.END_OF_OUTPUT}"


def boxed(answer: str) -> str:
    """The answer step that states `answer`."""
    return f"\n{markers.ANSWER}\\boxed{{{answer}}}{markers.END_OF_ANSWER}"


def boxed_answer(text: str) -> str | None:
    """The content of the last `\\boxed{...}` whose braces match, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    begin = start + len("\\boxed{")
    for i in range(begin - 1, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[begin:i].strip()
    return None
