"""A search tree: a structure of arrays, one row a node, in the order in which nodes were made."""

import array
import dataclasses
import enum
import hashlib
import itertools
from typing import Any

import numpy as np

from rstar_jax.problems.problem import Problem

ROOT_INDEX = 0
NO_PARENT = -1
UNVISITED = -1
UNKNOWN = -1  # of `correct`: nobody graded this node, or could decide it

_INITIAL_CAPACITY = 64


class Kind(enum.IntEnum):
    """What a node is. ANSWER and FAILED are terminal."""

    ROOT = 0
    STEP = 1  # ends with <end_of_step>
    CODE = 2  # ends with <end_of_code> and the output of the block
    ANSWER = 3  # ends with <end_of_answer> and has a box
    FAILED = 4  # `error` says why


@dataclasses.dataclass(slots=True, kw_only=True)
class Node:
    """What a node brings when it joins a tree.

    text: the sampled step and, if it closed a code block, the output of the block. tokens: the same as token ids.
    logprob: of the sampled part. verdict: how its code ended, "" if none ran. output: what its own code printed.
    error: why it failed, or the error of a step that may go on. answer: the content of its box, None if none.
    """

    text: str
    tokens: tuple[int, ...]
    kind: Kind
    logprob: float = 0.0
    verdict: str = ""
    output: str = ""
    error: str = ""
    answer: str | None = None
    consecutive_errors: int = 0


_ANSWER = Kind.ANSWER  # looking it up in the class costs more than comparing with it (Python 3.11)
_ARRAYS = {  # column: (dtype, what an unused row holds)
    "parent": (np.int32, NO_PARENT),
    "depth": (np.int32, 0),
    "visits": (np.int32, 0),
    "value_sum": (np.float64, 0.0),
    "value": (np.float64, 0.0),
    "kind": (np.int8, Kind.ROOT),
    "exhausted": (np.bool_, False),
    "consecutive_errors": (np.int32, 0),
    "correct": (np.int8, UNKNOWN),
}
_LISTS = ("text", "tokens", "logprob", "verdict", "output", "error", "answer")


def tree_key(seed: int, problem_id: str, trajectory: int = 0) -> int:
    """The unsigned 32-bit key of a problem's tree: the same in every process and on every machine.

    trajectory: which of the problem's independent searches the tree is of.
    """
    name = f"{seed}.{trajectory}:{problem_id}" if trajectory else f"{seed}:{problem_id}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _array(name: str, doc: str) -> property:
    return property(lambda tree: tree._arrays[name][: tree.size], doc=doc)


class Tree:
    """A problem and the steps that were searched for it. The root holds the prompt.

    The arrays are views of the rows in use, [N]. The lists `text`, `tokens`, `logprob`, `verdict`, `output`, `error`
    and `answer` hold what `Node` says. Habits are mctx's: ROOT_INDEX 0, NO_PARENT and UNVISITED -1.
    """

    parent = _array("parent", "int32 [N]: the parent's index, NO_PARENT at the root.")
    depth = _array("depth", "int32 [N]: steps from the root.")
    visits = _array("visits", "int32 [N]: values that went into `value_sum`.")
    value_sum = _array("value_sum", "float64 [N]: W, the sum of the node's own values and those backed up from below.")
    value = _array("value", "float64 [N]: the first value the node got, 0 if it has none.")
    kind = _array("kind", "int8 [N]: `Kind`.")
    exhausted = _array("exhausted", "bool [N]: nothing is left to expand, here or below.")
    consecutive_errors = _array("consecutive_errors", "int32 [N]: steps in a row, up to this one, whose code failed.")
    correct = _array("correct", "int8 [N]: 1 or 0 at graded answers, UNKNOWN elsewhere.")

    # What the search that made it has cost, duplicates included; it does not go to disk with the tree.
    sampled_tokens = 0
    programs = 0

    def __init__(self, problem: Problem, *, key: int, prompt: str, prompt_tokens: tuple[int, ...]):
        self.problem = problem
        self.key = key
        self.size = 0
        self._arrays = {name: np.full(_INITIAL_CAPACITY, empty, dtype) for name, (dtype, empty) in _ARRAYS.items()}
        self._children: list[list[int]] = []
        self.text: list[str] = []
        self.tokens: list[array.array] = []  # int32: a tenth of what tuples of Python's integers take
        self.logprob: list[float] = []
        self.verdict: list[str] = []
        self.output: list[str] = []
        self.error: list[str] = []
        self.answer: list[str | None] = []
        self.add(NO_PARENT, Node(text=prompt, tokens=prompt_tokens, kind=Kind.ROOT))

    def add(self, parent: int, node: Node) -> int:
        """Makes `node` the last child of `parent`; returns its index."""
        index = self.size
        arrays = self._arrays
        if index == len(arrays["parent"]):
            for name, (dtype, empty) in _ARRAYS.items():
                arrays[name] = np.concatenate([arrays[name], np.full(index, empty, dtype)])
        arrays["parent"][index] = parent
        arrays["kind"][index] = node.kind
        arrays["consecutive_errors"][index] = node.consecutive_errors
        arrays["exhausted"][index] = node.kind >= _ANSWER
        for name in _LISTS:
            getattr(self, name).append(getattr(node, name))
        self.tokens[index] = array.array("i", node.tokens)
        self._children.append([])
        if parent != NO_PARENT:
            arrays["depth"][index] = arrays["depth"][parent] + 1
            self._children[parent].append(index)
        self.size += 1
        return index

    def children(self, node: int) -> list[int]:
        """The node's children in the order in which they were sampled."""
        return self._children[node]

    def is_terminal(self, node: int) -> bool:
        """Whether the node is an answer or failed."""
        return self._arrays["kind"].item(node) >= _ANSWER

    def has_answer(self, node: int) -> bool:
        """Whether a child of the node is an answer."""
        kind = self._arrays["kind"]
        return any(kind.item(child) == _ANSWER for child in self._children[node])

    def q(self, node: int) -> float:
        """Q = W / N, 0 for a node without visits (paper: Eq. 2)."""
        visits = self._arrays["visits"].item(node)
        return self._arrays["value_sum"].item(node) / visits if visits else 0.0

    def update(self, node: int, value: float) -> None:
        """Adds one value, one visit, to this node alone."""
        visits = self._arrays["visits"]
        if visits[node] == 0:
            self._arrays["value"][node] = value
        visits[node] += 1
        self._arrays["value_sum"][node] += value

    def path(self, node: int) -> list[int]:
        """The indices from the root to the node, both included."""
        parent = self._arrays["parent"]
        indices = [node]
        while node != ROOT_INDEX:
            node = parent.item(node)
            indices.append(node)
        return indices[::-1]

    def path_text(self, node: int) -> str:
        """The prompt and all steps to the node."""
        return "".join(self.text[i] for i in self.path(node))

    def path_tokens(self, node: int) -> tuple[int, ...]:
        """The same as token ids."""
        return tuple(itertools.chain.from_iterable(self.tokens[i] for i in self.path(node)))

    def response_text(self, node: int) -> str:
        """The steps to the node without the prompt."""
        return "".join(self.text[i] for i in self.path(node)[1:])

    def response_tokens(self, node: int) -> tuple[int, ...]:
        """The same as token ids."""
        return tuple(itertools.chain.from_iterable(self.tokens[i] for i in self.path(node)[1:]))

    def answers(self) -> list[int]:
        """The answer leaves in the order in which they were found."""
        return np.flatnonzero(self.kind == Kind.ANSWER).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Columns that JSON can hold; `from_dict` gives back an equal tree."""
        columns = {name: getattr(self, name).tolist() for name in _ARRAYS}
        columns["exhausted"] = self.exhausted.astype(int).tolist()
        columns.update({name: list(getattr(self, name)) for name in _LISTS})
        columns["tokens"] = [tuple(tokens) for tokens in self.tokens]
        return {"problem": dataclasses.asdict(self.problem), "key": self.key, "columns": columns}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Tree":
        """The tree that `to_dict` wrote."""
        columns = record["columns"]
        problem = Problem(**{**record["problem"], "answers": tuple(record["problem"]["answers"])})
        tree = cls(problem, key=record["key"], prompt="", prompt_tokens=())
        tree.size = len(columns["parent"])
        tree._arrays = {name: np.array(columns[name], dtype) for name, (dtype, _) in _ARRAYS.items()}
        for name in _LISTS:
            setattr(tree, name, columns[name])
        tree.tokens = [array.array("i", tokens) for tokens in tree.tokens]
        tree._children = [[] for _ in range(tree.size)]
        for index, parent in enumerate(columns["parent"][1:], start=1):
            tree._children[parent].append(index)
        return tree
