"""Which tree is shown, and that a view says of a tree what the tree says."""

import pytest

from rstar_jax.problems.problem import Problem
from rstar_jax.report import tree_view
from rstar_jax.search.tree import ROOT_INDEX, Kind, Node, Tree

from . import run_folder


def nodes(view):
    return [view, *(below for child in view.children for below in nodes(child))]


def chain(length: int) -> Tree:
    tree = Tree(Problem(id="chain", question="q", answers=("1",)), key=0, prompt="p", prompt_tokens=())
    for _ in range(length):
        tree.add(tree.size - 1, Node(text="<code>x<end_of_step>", tokens=(), kind=Kind.STEP))
    return tree


def test_a_solved_tree_with_wrong_answers_is_chosen_whatever_the_order():
    trees = [chain(40), run_folder.tree("a", solved=False), run_folder.tree("c"), run_folder.tree("b")]
    assert tree_view.choose(trees).problem.id == "b"
    assert tree_view.choose(reversed(trees)).problem.id == "b"
    assert tree_view.choose([]) is None


def test_view_holds_every_node_with_its_numbers():
    tree = run_folder.tree()
    view = tree_view.view(tree)
    made = nodes(view.root)
    assert len(made) == tree.size == view.nodes
    numbers = [(tree.visits[i], tree.q(i)) for i in range(tree.size)]
    assert sorted((node.visits, node.q) for node in made) == sorted(numbers)
    assert (view.root.right_below, view.root.wrong_below, view.root.failed_below) == (2, 2, 1)
    assert [node.right for node in made if node.kind == "answer"] == [True, True, False, False]


def test_chosen_path_leads_to_the_best_correct_answer():
    root = tree_view.view(run_folder.tree()).root
    path = [node for node in nodes(root) if node.chosen]
    assert [node.kind for node in path] == ["root", "step", "code", "answer"]
    assert path[-1].right is True
    assert path[1].title == "Step 1: the apples she has"


def test_without_a_right_answer_the_best_by_q_is_open():
    view = tree_view.view(run_folder.tree(solved=False))
    assert view.chosen == "the answer with the highest Q"
    assert [node for node in nodes(view.root) if node.chosen][-1].right is False


@pytest.mark.parametrize("length", [0, 100])
def test_trees_without_answers_have_no_chosen_path(length):
    view = tree_view.view(chain(length))
    assert view.chosen == "" and view.nodes == length + 1
    assert [node for node in nodes(view.root) if node.chosen] == [view.root]


def test_code_shows_without_markers_and_long_text_is_clipped():
    tree = chain(0)
    text = "<code>\n# All of it\nprint('a' * 9999)\n<end_of_code>\n<output>aaa<end_of_output>"
    tree.add(ROOT_INDEX, Node(text=text, tokens=(), kind=Kind.CODE, output="a" * 9999, verdict="ok"))
    (node,) = tree_view.view(tree).root.children
    assert node.title == "All of it"
    assert node.code == "# All of it\nprint('a' * 9999)"
    assert node.output.startswith("a" * 4000) and node.output.endswith("… 5,999 more characters")


def test_code_that_its_line_says_in_full_is_not_said_twice():
    codes = {node.answer or node.title: node.code for node in nodes(tree_view.view(run_folder.tree()).root)}
    assert codes["print(apples + 2)"] == codes["7"] == codes["5"] == ""
    assert codes["7.0"] == "So \\boxed{7.0}"
    assert codes["Step 1: the apples she has"].endswith("apples = 3")
