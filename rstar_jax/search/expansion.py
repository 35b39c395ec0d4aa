"""One expansion: sampled steps become children of a node.

A generator that asks and is answered, so that a scheduler can put the questions of many trees into one batch:

    candidates = yield Sample(prefixes)     from the policy
    outcomes = yield Run(requests)          from the verifier
    scores, grades = yield Judge(...)       from the PPM and the grader

A phase with nothing to ask is left out.
"""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

from rstar_jax.search import published, uct
from rstar_jax.search.config import SearchConfig
from rstar_jax.search.protocols import Prefix, Step
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree
from rstar_jax.trajectory import markers, steps
from rstar_jax.verifier.protocol import Outcome, Request, Verdict

TOO_LONG = "the path has more tokens than max_prefix_tokens"
TOO_DEEP = "the path has max_depth steps and no answer"
CUT_SHORT = "the step ran out of room before a stop marker"
NO_MARKER = "the model ended the text without a stop marker"
NO_BOX = "the answer has no box"

# Looking a member up in an enum class costs more than all else in the loops below (Python 3.11).
_STEP, _CODE, _ANSWER, _FAILED = Kind.STEP, Kind.CODE, Kind.ANSWER, Kind.FAILED
_SCORED = {"terminal": (), "ppm": (_STEP, _CODE), "test": (_STEP, _CODE, _ANSWER), "none": ()}

Encode = Callable[[str], tuple[int, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Asks for candidates under each prefix. Answer: `list[list[Step]]`."""

    prefixes: tuple[Prefix, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Asks to run code. Answer: `list[list[Outcome]]`, one list a request."""

    requests: tuple[Request, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """Asks for values. Answer: `(list of score arrays, one a prefix; list of bool | None, one an answer)`.

    prefixes, candidates: for the PPM; the token ids of steps, with their output. answers: (golds, answer) to grade.
    """

    prefixes: tuple[Prefix, ...]
    candidates: tuple[tuple[tuple[int, ...], ...], ...]
    answers: tuple[tuple[tuple[str, ...], str], ...]


Ask = Sample | Run | Judge


def prefix(tree: Tree, node: int) -> Prefix:
    """The path to a node; its key depends on the tree and the node's index only."""
    return Prefix(key=(tree.key, node), text=tree.path_text(node), tokens=tree.path_tokens(node))


def open_block(tree: Tree, node: int) -> list[int]:
    """The nodes, first to last, of the code block that is still open at `node`; empty after a closed block."""
    block = []
    while node != ROOT_INDEX and markers.END_OF_CODE not in tree.text[node]:
        block.append(node)
        if markers.CODE in tree.text[node]:
            break
        node = tree.parent.item(node)
    return block[::-1]


def program(tree: Tree, block: Sequence[int]) -> tuple[str, str]:
    """The code of an open block as (what ran without a fault, what must run again together with the next step).

    A step that failed may be a statement cut in two: its code counts as the beginning of the step that follows.
    """
    ran = 0
    for i, node in enumerate(block, start=1):
        if tree.verdict[node] == Verdict.OK:
            ran = i
    codes = [steps.code(tree.text[node]) for node in block]
    return "\n".join(codes[:ran]), "\n".join(codes[ran:])


def begin(tree: Tree, config: SearchConfig) -> None:
    """Every search begins so: a prompt that is too long ends its tree.

    Raises: ValueError if the tree of a test-time search carries the ground truth.
    """
    if not config.sees_answers and (tree.problem.answers or tree.problem.solution):
        raise ValueError(f"a test-time search must not be given the answer of problem {tree.problem.id!r}")
    if len(tree.tokens[ROOT_INDEX]) > config.max_prefix_tokens:
        tree.error[ROOT_INDEX], tree.exhausted[ROOT_INDEX] = TOO_LONG, True


def expand(tree: Tree, nodes: Sequence[int], config: SearchConfig, encode: Encode) -> Generator[Ask, Any, None]:
    """Expands nodes of one tree: adds their children, gives them values, and backs up what their answers are worth."""
    prefixes = [prefix(tree, node) for node in nodes]
    sampled = yield Sample(prefixes=tuple(prefixes))
    drafts = [
        [_draft(tree, node, step, len(prefix.tokens), config) for step in _unique(candidates, config)]
        for node, prefix, candidates in zip(nodes, prefixes, sampled, strict=True)
    ]
    yield from _run(tree, nodes, drafts, prefixes, config, encode)
    first = tree.size
    for node, siblings in zip(nodes, drafts, strict=True):
        for draft in siblings:
            if draft.kind in (_STEP, _CODE) and tree.depth[node] >= config.max_depth:  # with published faults alone
                draft.kind, draft.error = _FAILED, TOO_DEEP
            tree.add(node, draft)
    scores, grades = yield from _judge(tree, nodes, prefixes, config)
    _give_values(tree, range(first, tree.size), scores, grades)
    for node in nodes:
        uct.close_exhausted(tree, node, climb=config.exhaustion == "at_once")


def _unique(candidates: Sequence[Step], config: SearchConfig) -> list[Step]:
    unique: dict[str, Step] = {}
    for step in candidates:
        unique.setdefault(published.written(step) if config.published_faults else step.text, step)
    if config.first_answer_only:
        answers = [step for step in unique.values() if step.stop == markers.END_OF_ANSWER]
        return answers[:1] or list(unique.values())
    return list(unique.values())


def _draft(tree: Tree, node: int, step: Step, prefix_length: int, config: SearchConfig) -> Node:
    """The node that a candidate would become, as far as its text tells."""
    draft = Node(text=step.text, tokens=step.tokens, logprob=step.logprob, kind=_FAILED)
    if config.published_faults:
        if prefix_length + len(step.tokens) > config.max_prefix_tokens:
            draft.error = TOO_LONG
        else:
            published.read(draft, tree.consecutive_errors.item(node))
    elif step.stop == "length":
        draft.error = CUT_SHORT
    elif step.stop == "":
        draft.error = NO_MARKER
    elif prefix_length + len(step.tokens) > config.max_prefix_tokens:
        draft.error = TOO_LONG
    elif step.stop == markers.END_OF_ANSWER:
        answer = steps.boxed_answer(step.text)
        if answer:
            draft.kind, draft.answer = _ANSWER, answer
        else:
            draft.error = NO_BOX
    elif tree.depth[node] + 1 >= config.max_depth:
        draft.error = TOO_DEEP
    else:
        draft.kind = _CODE if step.stop == markers.END_OF_CODE else _STEP
        draft.consecutive_errors = tree.consecutive_errors.item(node)
    return draft


def _run(
    tree: Tree,
    nodes: Sequence[int],
    drafts: Sequence[Sequence[Node]],
    prefixes: Sequence[Prefix],
    config: SearchConfig,
    encode: Encode,
) -> Generator[Run, list[list[Outcome]], None]:
    """Runs the code of the drafts that have some, and writes into them what came of it."""
    asked = []  # (drafts of one node, its open block, length of its prefix)
    requests = []
    for node, siblings, above in zip(nodes, drafts, prefixes, strict=True):
        runnable = [draft for draft in siblings if draft.kind in (_STEP, _CODE)]
        if config.published_faults:
            runnable = [draft for draft in runnable if not published.claims_answer(draft.text)]
        if not runnable:
            continue
        if config.published_faults:
            ran, pending, printed = "", "\n".join(published.block(tree, node)), ""
        else:
            block = open_block(tree, node)
            ran, pending = program(tree, block)
            printed = "".join(tree.output[i] for i in block)
        codes = [steps.code(draft.text) for draft in runnable]
        candidates = tuple(f"{pending}\n{code}" if pending else code for code in codes)
        requests.append(Request(prefix=ran, candidates=candidates))
        asked.append((runnable, printed, len(above.tokens)))
    if not requests:
        return
    outcomes = yield Run(requests=tuple(requests))
    for (runnable, printed, prefix_length), results in zip(asked, outcomes, strict=True):
        for draft, outcome in zip(runnable, results, strict=True):
            _settle(draft, outcome, printed, prefix_length, config, encode)


def _settle(
    draft: Node, outcome: Outcome, printed: str, prefix_length: int, config: SearchConfig, encode: Encode
) -> None:
    """Writes an outcome into its draft. A block that closes shows its output, or its error if it failed."""
    draft.verdict = outcome.verdict.value
    if outcome.ok:
        draft.output = outcome.output
    else:
        draft.error = outcome.error or outcome.verdict.value
    failed, shown = not outcome.ok, (printed + draft.output).rstrip("\n") if outcome.ok else draft.error
    if config.published_faults:
        failed, shown = published.failed(outcome), published.shown(outcome)
        draft.error = shown if failed else draft.error
    draft.consecutive_errors = draft.consecutive_errors + 1 if failed else 0
    if draft.kind == _CODE:
        text = steps.with_output(draft.text, shown)
        draft.tokens += tuple(encode(text[len(draft.text) :]))
        draft.text = text
    if draft.consecutive_errors >= config.max_consecutive_errors or outcome.verdict is Verdict.UNVERIFIED:
        draft.kind = _FAILED
    elif prefix_length + len(draft.tokens) > config.max_prefix_tokens:
        draft.kind, draft.error = _FAILED, TOO_LONG


def _judge(
    tree: Tree, nodes: Sequence[int], prefixes: Sequence[Prefix], config: SearchConfig
) -> Generator[Judge, Any, tuple[dict[int, float], dict[int, bool | None]]]:
    """Asks for the values of the new children: PPM scores by node, grades by node."""
    to_score, kind = _SCORED[config.value_mode], tree.kind
    scored = [
        (above, [child for child in tree.children(node) if kind.item(child) in to_score])
        for node, above in zip(nodes, prefixes, strict=True)
    ]
    scored = [(above, children) for above, children in scored if children]
    graded = []
    if config.sees_answers:
        graded = [child for node in nodes for child in tree.children(node) if kind.item(child) == _ANSWER]
    if not scored and not graded:
        return {}, {}
    values, grades = yield Judge(
        prefixes=tuple(above for above, _ in scored),
        candidates=tuple(tuple(tuple(tree.tokens[child]) for child in children) for _, children in scored),
        answers=tuple((tree.problem.answers, tree.answer[child]) for child in graded),
    )
    scores = {}
    for (_, children), row in zip(scored, values, strict=True):
        scores.update((child, float(value)) for child, value in zip(children, row, strict=True))
    return scores, dict(zip(graded, grades, strict=True))


def _give_values(
    tree: Tree,
    children: Sequence[int],
    scores: dict[int, float],
    grades: dict[int, bool | None],
) -> None:
    """A score is one visit of the child alone, as is the -1 of a failure; only what an answer is worth goes up.

    An answer of which it is undecided whether it is right is worth nothing: no visit, no value, and no end of a pair.
    """
    for child, value in scores.items():
        if not -1.0 <= value <= 1.0:
            raise ValueError(f"a score must lie in [-1, 1], got {value} for node {child} of {tree.problem.id!r}")
    kinds = tree.kind.tolist()
    for child in children:
        if kinds[child] == _FAILED:
            if tree.verdict[child] != Verdict.UNVERIFIED:  # our fault, not the step's
                tree.update(child, -1.0)
        elif child in grades:
            if grades[child] is not None:
                tree.correct[child] = grades[child]
                uct.backup(tree, child, 1.0 if grades[child] else -1.0)
        elif child in scores:
            (uct.backup if kinds[child] == _ANSWER else Tree.update)(tree, child, scores[child])
