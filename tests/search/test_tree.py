"""Trees, UCT and backup by hand."""

import json
import math

import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.search import uct
from rstar_jax.search.tree import NO_PARENT, ROOT_INDEX, UNKNOWN, UNVISITED, Kind, Node, Tree, tree_key


def sapling() -> Tree:
    return Tree(Problem(id="p", question="q", answers=("a",)), key=7, prompt="prompt ", prompt_tokens=(1, 2))


def node(text: str, kind: Kind = Kind.STEP, **fields) -> Node:
    return Node(text=text, tokens=tuple(text.encode()), kind=kind, **fields)


def test_paths_and_columns():
    tree = sapling()
    a = tree.add(ROOT_INDEX, node("a"))
    b = tree.add(ROOT_INDEX, node("b"))
    c = tree.add(b, node("c", Kind.ANSWER, answer="3", logprob=-0.5))
    assert (a, b, c) == (1, 2, 3)
    assert tree.children(ROOT_INDEX) == [a, b]
    assert tree.path(c) == [ROOT_INDEX, b, c]
    assert tree.path_text(c) == "prompt bc"
    assert tree.response_text(c) == "bc"
    assert tree.path_tokens(c) == (1, 2, 98, 99)
    assert tree.response_tokens(c) == (98, 99)
    assert tree.parent.tolist() == [NO_PARENT, 0, 0, 2]
    assert tree.depth.tolist() == [0, 1, 1, 2]
    assert tree.correct.tolist() == [UNKNOWN] * 4
    assert tree.exhausted.tolist() == [False, False, False, True]
    assert tree.answers() == [c]
    assert tree.is_terminal(c) and not tree.is_terminal(b)


def test_grows_beyond_its_first_capacity_and_survives_json():
    tree = sapling()
    last = ROOT_INDEX
    for i in range(300):
        last = tree.add(last if i % 3 else ROOT_INDEX, node(f"s{i} ", output="1\n", error="", verdict="ok"))
        uct.backup(tree, last, (-1.0) ** i / 3)
    tree.correct[5] = 1
    record = tree.to_dict()
    copy = Tree.from_dict(json.loads(json.dumps(record)))
    assert copy.to_dict() == record
    assert copy.children(ROOT_INDEX) == tree.children(ROOT_INDEX)
    assert copy.problem == tree.problem and copy.key == tree.key
    more = copy.add(last, node("more"))
    assert copy.path_text(more) == tree.path_text(last) + "more"


def test_keys_are_stable():
    assert tree_key(0, "p") == 0x82E2058A
    assert tree_key(1, "p") != tree_key(0, "p") != tree_key(0, "q")


@pytest.mark.parametrize(
    ("q", "parent_visits", "visits", "expected"),
    [
        (0.0, 0, 0, 0.0),
        (0.0, 5, 0, 0.0),  # unvisited: no bonus, not infinity
        (0.5, 0, 1, 0.5),  # a PPM value below a node that was never visited
        (0.5, 1, 1, 0.5),  # ln 1 = 0
        (-1.0, 2, 1, -1 + 2 * math.sqrt(math.log(2))),
        (0.25, 9, 4, 0.25 + 2 * math.sqrt(math.log(9) / 4)),
    ],
)
def test_uct_by_hand(q, parent_visits, visits, expected):
    assert uct.uct(q, parent_visits, visits, 2.0) == pytest.approx(expected)


def test_selection_takes_the_first_of_equals_and_what_uct_says():
    tree = sapling()
    children = [tree.add(ROOT_INDEX, node(text)) for text in "abc"]
    assert uct.select(tree, ROOT_INDEX, 2.0, unvisited="zero") == children[0]
    uct.backup(tree, children[0], -1.0)
    assert uct.select(tree, ROOT_INDEX, 2.0, unvisited="zero") == children[1]  # -1 + 2 sqrt(ln 1) < 0
    uct.backup(tree, children[1], -1.0)
    assert uct.select(tree, ROOT_INDEX, 2.0, unvisited="zero") == children[0]  # -1 + 2 sqrt(ln 2) = 0.67 > 0
    scores = [uct.uct(tree.q(c), 2, int(tree.visits[c]), 2.0) for c in children]
    assert scores == pytest.approx([0.6651, 0.6651, 0.0], abs=1e-4)
    tree.exhausted[children[0]] = tree.exhausted[children[1]] = True
    assert uct.select(tree, ROOT_INDEX, 2.0, unvisited="zero") == children[2]
    tree.exhausted[children[2]] = True
    assert uct.select(tree, ROOT_INDEX, 2.0, unvisited="zero") == UNVISITED


def test_selection_equals_its_definition():
    tree = sapling()
    children = [tree.add(ROOT_INDEX, node(str(i))) for i in range(6)]
    for i, child in enumerate(children[:5]):
        for j in range(i + 1):
            uct.backup(tree, child, 1.0 if (i + j) % 3 else -1.0)
    scores = [uct.uct(tree.q(c), int(tree.visits[0]), int(tree.visits[c]), 1.4) for c in children]
    assert uct.select(tree, ROOT_INDEX, 1.4, unvisited="zero") == children[scores.index(max(scores))]


def test_backup_reaches_the_root_and_update_does_not():
    tree = sapling()
    a = tree.add(ROOT_INDEX, node("a"))
    b = tree.add(a, node("b"))
    tree.update(a, 0.5)
    uct.backup(tree, b, -1.0)
    assert tree.visits.tolist() == [1, 2, 1]
    assert tree.value_sum.tolist() == [-1.0, -0.5, -1.0]
    assert tree.value.tolist() == [-1.0, 0.5, -1.0]  # the first value each got
    assert tree.q(a) == -0.25


def test_exhaustion_climbs_at_once():
    tree = sapling()
    a, b = tree.add(ROOT_INDEX, node("a")), tree.add(ROOT_INDEX, node("b"))
    c = tree.add(a, node("c"))
    tree.add(c, node("d", Kind.FAILED))
    uct.close_exhausted(tree, c)
    assert tree.exhausted.tolist() == [False, True, False, True, True]
    tree.add(b, node("e", Kind.ANSWER, answer="1"))
    uct.close_exhausted(tree, b)
    assert tree.exhausted.all()
