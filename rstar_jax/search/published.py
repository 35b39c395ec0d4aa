"""How the released code reads a step, with its faults: what `SearchConfig.published_faults` turns on.

Written from its behaviour (microsoft/rStar, branch `rStar-math`: `agents/utils.py`, `agents/mcts.py`), so that its
published trees can be reproduced. What it does differently:

- Candidates merge by their text without the marker that they stopped on. One that stopped on no marker, or is empty,
  is searched on as if it were a step.
- "boxed" anywhere in a step makes it an answer, with `<end_of_answer>` or without. An answer is cut at its first ".\\n"
  before its box is looked for; an empty box leaves the path open; an open brace leaves scraps as the answer.
- `<end_of_answer>` without a box is run as code.
- A whole block is run for each of its steps. A step failed if what it shows contains "error", whatever happened.
- Steps of a path are counted after they ran, and the first rollout stops one level earlier than the others.
- A rollout goes on after an answer that has open siblings.
"""

from rstar_jax.search.protocols import Step
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Outcome, Verdict

INVALID_ANSWER = "[invalid]"
_BOX, _TEXT = "\\boxed{", "\\text{"


def written(step: Step) -> str:
    """What the policy wrote before the marker: equal candidates are those where this is equal."""
    return step.text.removesuffix(step.stop) if step.stop in markers.MARKERS else step.text


def claims_answer(text: str) -> bool:
    """Whether the released code looks for an answer in a step, and so does not run it."""
    return "boxed" in text


def answer(text: str) -> str:
    """The answer of a step that has "boxed" in it; "" leaves the path open."""
    sentence = text.split(".\n")[0].strip().removesuffix(".").strip()
    return _without_text_box(_content_of_box(sentence))


def read(draft: Node, parent_errors: int) -> None:
    """Writes into a draft what its text says: an answer, or a step with or without code to run."""
    found = answer(draft.text) if claims_answer(draft.text) else ""
    if found:
        draft.kind, draft.answer = Kind.ANSWER, found
    else:
        draft.kind = Kind.CODE if markers.END_OF_CODE in draft.text else Kind.STEP
        draft.consecutive_errors = 0 if claims_answer(draft.text) else parent_errors


def block(tree: Tree, node: int) -> list[str]:
    """The code of the steps above that are run once more with each step below `node`."""
    codes = []
    while (
        node != ROOT_INDEX
        and markers.END_OF_CODE not in tree.text[node]
        and markers.END_OF_OUTPUT not in tree.text[node]
    ):
        if not claims_answer(tree.text[node]):
            codes.append(steps.code(tree.text[node]))
        node = tree.parent.item(node)
    return codes[::-1]


def shown(outcome: Outcome) -> str:
    """What a program shows: its output, or its error."""
    return (outcome.output if outcome.ok else outcome.error or outcome.verdict.value).strip()


def failed(outcome: Outcome) -> bool:
    """Whether a step counts as failed: it shows the word "error", or it ended in a way other than an exception."""
    return outcome.verdict not in (Verdict.OK, Verdict.ERROR) or "error" in shown(outcome).lower()


def _content_of_box(text: str) -> str:
    start = text.rfind(_BOX)
    if start < 0:
        return text
    begin, end = _braces(text[start:])
    if end is None and begin is None:
        begin = start  # a position in the whole text, taken as one in the box: the scraps
    return text[start:][begin + 1 : end]


def _without_text_box(text: str) -> str:
    start = text.find(_TEXT)
    if start < 0:
        return text
    begin, end = _braces(text[start:])
    if end is None:
        return INVALID_ANSWER
    inside = text[start + begin + 1 : start + end].strip()
    return (text[:start] + ("" if inside == "and" else inside) + text[start + end + 1 :]).strip()


def _braces(text: str) -> tuple[int | None, int | None]:
    """Where the first group of `text` opens and closes. If it stays open: (what closed last opened here, None)."""
    opened, last = [], None
    for i, letter in enumerate(text):
        if letter == "{":
            opened.append(i)
        elif letter == "}":
            last = opened.pop()
            if not opened:
                return last, i
    return last, None
