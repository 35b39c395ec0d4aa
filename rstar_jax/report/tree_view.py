"""A searched tree to walk through: which tree is shown, and what each of its nodes shows."""

import dataclasses
import itertools
import math
from collections.abc import Iterable

from rstar_jax.search import answers, selection
from rstar_jax.search.tree import ROOT_INDEX, Kind, Tree
from rstar_jax.trajectory import markers, steps

_TREES_READ = 256  # of a round: more would not make a better choice, only a slower page
_GOOD_SIZE = 40  # nodes: branches enough to compare, few enough to read
_TITLE_CHARACTERS = 96
_TEXT_CHARACTERS = 4000


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeView:
    """What the page shows of a node.

    title: its step in one line. code: the step, "" if that line or the answer says all of it.
    right: whether its answer is; None for what is no answer or was not graded.
    right_below, wrong_below, failed_below: how many such leaves stand under it.
    chosen: whether it is on the chosen path.
    """

    kind: str
    title: str
    code: str
    output: str
    error: str
    verdict: str
    q: float
    visits: int
    answer: str | None
    right: bool | None
    right_below: int
    wrong_below: int
    failed_below: int
    chosen: bool
    children: tuple["NodeView", ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TreeView:
    """A tree and its problem. chosen: why the open path was chosen, "" if the tree has no answer."""

    question: str
    answer: str
    level: str | None
    source: str | None
    nodes: int
    chosen: str
    root: NodeView


def choose(trees: Iterable[Tree]) -> Tree | None:
    """The most instructive of the first trees: solved, with wrong answers beside the right ones, of moderate size.

    Of equals the one whose problem's id comes first. None without a tree.
    """
    return min(itertools.islice(trees, _TREES_READ), key=_uninstructive, default=None)


def view(tree: Tree) -> TreeView:
    """What the page shows of a tree. The chosen path is the one the policy learns from, else the best answer by Q."""
    trained = selection.correct_trajectories(tree, 1)
    leaf = trained[0] if trained else answers.best(tree)
    if trained:
        chosen = "the correct trajectory with the highest mean Q, which the policy learns from"
    else:
        chosen = "" if leaf is None else "the answer with the highest Q"
    on_path = frozenset([ROOT_INDEX] if leaf is None else tree.path(leaf))
    # Children stand after their parents, so going backwards every node finds its children made.
    made: dict[int, NodeView] = {}
    for node in range(tree.size - 1, ROOT_INDEX - 1, -1):
        made[node] = _node_view(tree, node, on_path, tuple(made.pop(child) for child in tree.children(node)))
    problem = tree.problem
    return TreeView(
        question=problem.question,
        answer=" or ".join(problem.answers),
        level=problem.level,
        source=problem.source,
        nodes=tree.size,
        chosen=chosen,
        root=made[ROOT_INDEX],
    )


def _uninstructive(tree: Tree) -> tuple[int, int, bool, float, str]:
    right, wrong = int((tree.correct == 1).sum()), int((tree.correct == 0).sum())
    missing = 0 if right and wrong else 1 if right else 2 if wrong else 3
    few = (right < 2) + (wrong < 2)  # a single right answer may be luck
    shallow = int(tree.depth.max()) < 3
    return missing, few, shallow, abs(math.log(tree.size / _GOOD_SIZE)), tree.problem.id


def _node_view(tree: Tree, node: int, on_path: frozenset[int], children: tuple[NodeView, ...]) -> NodeView:
    kind = Kind(tree.kind[node])
    correct = tree.correct.item(node) if kind == Kind.ANSWER else -1
    code = "" if kind == Kind.ROOT else _code(tree.text[node])
    said = f"\\boxed{{{tree.answer[node]}}}" if kind == Kind.ANSWER else _title(code)
    return NodeView(
        kind=kind.name.lower(),
        title=_title(code),
        code="" if code.strip() == said else _clipped(code),
        output=_clipped(tree.output[node]),
        error=_clipped(tree.error[node]),
        verdict=str(tree.verdict[node]),
        q=tree.q(node),
        visits=tree.visits.item(node),
        answer=tree.answer[node],
        right={1: True, 0: False}.get(correct),
        right_below=sum(child.right_below + (child.right is True) for child in children),
        wrong_below=sum(child.wrong_below + (child.right is False) for child in children),
        failed_below=sum(child.failed_below + (child.kind == "failed") for child in children),
        chosen=node in on_path,
        children=children,
    )


def _code(text: str) -> str:
    text = steps.code(text)
    for marker in markers.SPECIAL_TOKENS:
        text = text.replace(marker, "")
    return text.strip("\n")


def _title(code: str) -> str:
    """The step's first comment, else its first line."""
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    comments = [line.lstrip("# ") for line in lines if line.startswith("#") and line.lstrip("# ")]
    title = (comments or lines or [""])[0]
    return title if len(title) <= _TITLE_CHARACTERS else title[: _TITLE_CHARACTERS - 1] + "…"


def _clipped(text: str) -> str:
    if len(text) <= _TEXT_CHARACTERS:
        return text
    return f"{text[:_TEXT_CHARACTERS]}\n… {len(text) - _TEXT_CHARACTERS:,} more characters"
