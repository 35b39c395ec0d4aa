"""Trees in the JSONL format of the released rStar-Math code, there and back: `rstar convert`.

One tree a line: the row of the problem, and under "rstar" its nodes by tag ("0" the root, "0.2" its second child):

    {"index", "question", "answer", "source", "level", "solution", "rstar": {"0.2": {"text", "extra_info", "action",
        "action_input", "final_answer", "observation" (steps whose code ran), "value", "q_value", "visit_count"}, ...}}

Nodes stand in the order in which they were made; the released code writes them level by level. Either is read back.

What has a place there, and comes back: problems, parents, order, texts, kinds, answers, visits, first values, Q (and so
W, to its last bit or two), verdicts with the output or the error of the code, and what follows from these: depth,
consecutive errors, what is exhausted, and of answers whose Q is 1 or -1 whether they are correct.

What is lost:
- token ids (empty), log-probabilities (0), keys: a tree that comes from there can be learned from, not searched on.
- a prompt other than `steps.prompt` of the question: the released code holds none, so this one is taken.
- why a path ended, but for the three reasons that the released code knows.
- that a program without fault only printed what looks like an error ("NameError: ..."): it is read as one.
Trees of the released beam search have no visits: there a value other than 0 counts as one.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from rstar_jax import files, json_lines
from rstar_jax.problems.problem import Problem
from rstar_jax.search import expansion, storage
from rstar_jax.search.tree import NO_PARENT, ROOT_INDEX, Kind, Node, Tree, tree_key
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Verdict

# The three reasons, as the released code spells them.
CODE_ERRORS = "Too many consecutive steps have code errors."
TOO_MANY_STEPS = "Fail to sove the problem within limited steps."
NOT_PARSED = "Fail to generate parsable text for next step."

_VERDICTS = frozenset(Verdict)
_ACTION = "python_interpreter"
_ROOT_TAG = "0"
_TAG = re.compile(r"0(\.[1-9][0-9]*)*")
_NO_ROOM = (expansion.TOO_DEEP, expansion.TOO_LONG)
_ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Warning|Exit|Interrupt|Iteration)(:|$)")  # "Type: message"
_OTHER_FAULT = re.compile(r"Error \((\w+)\): (.*)", re.DOTALL)  # how we write what is no exception
_MOST_VISITS = 2**31 - 1
_LARGEST = 1e100  # of values: a sum of them stays finite


def convert(*, input: str, output: str) -> None:
    """Released JSONL becomes a folder of one shard, tree shards become one JSONL file; prints what was written.

    input: a JSONL file or a folder of them; a folder of shards or one of its `.array_record` files.
    Raises: ValueError naming file and line (or tree) where one is malformed, OSError where a path cannot be used.
    """
    source, target = epath.Path(input), epath.Path(output)
    if not source.exists():
        raise FileNotFoundError(f"--input={input}: no such file or folder")
    if source.is_dir():
        shards, sources = storage.done_shards(source), sorted(source.glob("*.jsonl"))
        if bool(shards) == bool(sources):
            raise ValueError(f"--input={input}: expected a folder of shards that are done, or one of JSONL files")
    else:
        shards, sources = ([source], []) if source.suffix == ".array_record" else ([], [source])
    if shards:
        if target.is_dir():
            raise IsADirectoryError(f"--output={output}: is a folder, expected the name of a JSONL file")
        with storage.Trees(shards) as trees:
            write_jsonl(target, trees)
        print(target)
    else:
        if target.is_dir() and storage.done_shards(target):
            raise FileExistsError(f"--output={output}: holds shards already, expected a new folder")
        print(storage.write_shard(target, 0, 1, (tree for file in sources for tree in read_jsonl(file))))


def write_jsonl(path: epath.PathLike, trees: Iterable[Tree]) -> None:
    """Writes one tree a line. The file takes its name when it is complete."""
    with files.staged(path) as local, open(local, "w", encoding="utf-8") as file:
        for tree in trees:
            file.write(json.dumps(to_released(tree)) + "\n")


def read_jsonl(path: epath.PathLike) -> Iterator[Tree]:
    """The trees of a file, one after another. Raises ValueError naming file and line where one is malformed."""
    for number, where, row in json_lines.read(path):
        try:
            tree = from_released(row, default_id=str(number))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        yield tree


def to_released(tree: Tree) -> dict[str, Any]:
    """The row of a tree, as the module says."""
    problem = tree.problem
    row: dict[str, Any] = {"index": problem.id, "question": problem.question, "answer": _written(problem.answers)}
    row.update((name, getattr(problem, name)) for name in ("source", "level", "solution") if getattr(problem, name))
    tags = {ROOT_INDEX: _ROOT_TAG}
    for node in range(tree.size):
        tags.update((child, f"{tags[node]}.{i}") for i, child in enumerate(tree.children(node), start=1))
    row["rstar"] = {tags[node]: _state(tree, node) for node in range(tree.size)}
    return row


def from_released(row: Any, *, default_id: str) -> Tree:
    """The tree of a row. `default_id` is the problem's if the row has neither "id" nor "index".

    Raises: ValueError saying what was expected, and at which node.
    """
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not isinstance(row.get("rstar"), dict):
        raise ValueError('expected an object with "question" (text) and "rstar" (the nodes of a tree by tag)')
    problem = _problem(row, default_id)
    tree = Tree(problem, key=tree_key(0, problem.id), prompt=steps.prompt(problem.question), prompt_tokens=())
    states, indices = row["rstar"], {}
    for tag in _in_order(states):
        parent = NO_PARENT if tag == _ROOT_TAG else indices[_above(tag)]
        try:
            indices[tag] = _add(tree, parent, states[tag])
        except ValueError as error:
            raise ValueError(f"node {tag}: {error}") from None
    for node in range(tree.size - 1, ROOT_INDEX - 1, -1):  # children stand after their parents
        children = tree.children(node)
        tree.exhausted[node] |= bool(children) and all(tree.exhausted[child] for child in children)
    return tree


def _state(tree: Tree, node: int) -> dict[str, Any]:
    text, verdict = tree.text[node], tree.verdict[node]
    state = {"text": text, "extra_info": "", "action": "", "action_input": "", "final_answer": _final(tree, node)}
    if node == ROOT_INDEX:
        state.update(text="", extra_info=f"question: {tree.problem.question}")
    if verdict:
        sampled = text.partition(markers.END_OF_CODE)
        state.update(action=_ACTION, action_input=sampled[0] + sampled[1], observation=_observation(tree, node))
    state.update(value=tree.value.item(node), q_value=tree.q(node), visit_count=tree.visits.item(node))
    return state


def _final(tree: Tree, node: int) -> str:
    """The answer, or the reason that comes nearest to why the path failed."""
    kind, verdict = tree.kind[node], tree.verdict[node]
    if kind != Kind.FAILED:
        return tree.answer[node] or ""
    if tree.error[node] in _NO_ROOM:
        return TOO_MANY_STEPS
    return NOT_PARSED if verdict in ("", Verdict.OK, Verdict.UNVERIFIED) else CODE_ERRORS


def _observation(tree: Tree, node: int) -> str:
    verdict, error = tree.verdict[node], tree.error[node]
    if verdict == Verdict.OK:
        return tree.output[node]
    return error if verdict == Verdict.ERROR and _ERROR.match(error) else f"Error ({verdict}): {error}"


def _outcome(state: dict[str, Any], reason: str) -> tuple[str, str, str]:
    """(verdict, output, error) of a step, from what its code gave and, if it failed, why."""
    if "observation" not in state:
        return (Verdict.ERROR.value, "", reason) if reason == CODE_ERRORS else ("", "", reason)
    seen = _text(state, "observation")
    other = _OTHER_FAULT.fullmatch(seen)
    if other and other[1] in _VERDICTS:
        return other[1], "", other[2]
    if reason == CODE_ERRORS or _ERROR.match(seen):
        return Verdict.ERROR.value, "", seen
    return Verdict.OK.value, seen, reason


def _add(tree: Tree, parent: int, state: Any) -> int:
    """Adds a node with its values; of the root, which is there, only these."""
    if not isinstance(state, dict):
        raise ValueError("expected an object")
    node = ROOT_INDEX
    if parent != NO_PARENT:
        text, final = _text(state, "text"), _text(state, "final_answer")
        reason = final if final in (CODE_ERRORS, TOO_MANY_STEPS, NOT_PARSED) else ""
        draft = Node(text=text, tokens=(), kind=Kind.CODE if markers.END_OF_CODE in text else Kind.STEP)
        if reason:
            draft.kind = Kind.FAILED
        elif final:
            draft.kind, draft.answer = Kind.ANSWER, final
        if draft.kind != Kind.ANSWER:
            draft.verdict, draft.output, draft.error = _outcome(state, reason)
            if reason == TOO_MANY_STEPS:
                draft.error = expansion.TOO_DEEP
            if draft.verdict not in ("", Verdict.OK):
                draft.consecutive_errors = tree.consecutive_errors.item(parent) + 1
        node = tree.add(parent, draft)
    value = _number(state, "value")
    if "visit_count" in state:
        visits, q = _number(state, "visit_count"), _number(state, "q_value")
    else:  # a beam search
        visits, q = float(value != 0), value
    if not (visits.is_integer() and 0 <= visits <= _MOST_VISITS):
        raise ValueError(f'expected a count under "visit_count", got {state["visit_count"]!r}')
    tree.value[node], tree.visits[node], tree.value_sum[node] = value, int(visits), _value_sum(q, int(visits))
    if tree.kind[node] == Kind.ANSWER and tree.problem.answers and tree.q(node) in (1.0, -1.0):
        tree.correct[node] = tree.q(node) == 1.0
    return node


def _value_sum(q: float, visits: int) -> float:
    """The W whose mean is Q to the last bit: a whole number if there is one, as where values are 1 and -1."""
    if not visits:
        return 0.0
    near = q * visits
    for guess in (float(np.rint(near)), near, math.nextafter(near, math.inf), math.nextafter(near, -math.inf)):
        if guess / visits == q:
            return guess
    return near


def _in_order(states: dict[str, Any]) -> list[str]:
    """The tags as they stand, if no child stands before its parent or an older sibling; else level by level."""
    for tag in states:
        if not _TAG.fullmatch(tag):
            raise ValueError(f'expected tags such as "0" and "0.2.1", got {tag!r}')
        if tag != _ROOT_TAG and _above(tag) not in states:
            raise ValueError(f"node {tag}: its parent is not there")
    if _ROOT_TAG not in states:
        raise ValueError(f'expected a root, "{_ROOT_TAG}"')
    seen: dict[str, int] = {}  # the last child of each
    for tag in states:
        number = int(tag.rpartition(".")[2])
        if tag != _ROOT_TAG and (_above(tag) not in seen or number <= seen[_above(tag)]):
            return sorted(states, key=lambda tag: (tag.count("."), [int(part) for part in tag.split(".")]))
        seen[_above(tag)], seen[tag] = number, 0
    return list(states)


def _above(tag: str) -> str:
    return tag.rpartition(".")[0]


def _problem(row: dict[str, Any], default_id: str) -> Problem:
    source, level, solution = (row.get(name) for name in ("source", "level", "solution"))
    return Problem(
        id=str(row.get("id", row.get("index", default_id))),
        question=row["question"],
        answers=_read_answers(row.get("answer")),
        source=source if isinstance(source, str) else None,
        level=str(level) if isinstance(level, str | int) else None,
        solution=solution if isinstance(solution, str) else "",
    )


def _written(answers: tuple[str, ...]) -> str | list[str]:
    """The answer of a row: a list of several acceptable ones, "" where none is known."""
    return list(answers) if len(answers) > 1 else "".join(answers)


def _read_answers(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    return () if value in (None, "") else (str(value),)


def _text(state: dict[str, Any], name: str) -> str:
    text = state.get(name, "")
    if not isinstance(text, str):
        raise ValueError(f'expected text under "{name}", got {text!r:.80}')
    return text


def _number(state: dict[str, Any], name: str) -> float:
    number = state.get(name)
    if type(number) not in (int, float) or not abs(number) <= _LARGEST:
        raise ValueError(f'expected a number under "{name}", got {number!r:.80}')
    return float(number)
