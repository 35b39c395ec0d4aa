"""Pages are neither lost nor in two edges, whatever is inserted, pinned, cut and evicted."""

import random

import pytest

from rstar_jax.decoding.pages import PageTree

PAGE = 4


def check(tree):
    """Every page is free or one edge's, an edge has just the pages that its tokens need, and children know parents."""
    owned = [page for edge in tree.edges() for page in edge.pages]
    assert len(owned) == len(set(owned)) == tree.occupied and 0 not in owned
    for edge in tree.edges():
        assert len(edge.pages) == -(-len(edge.tokens) // PAGE)
        assert edge in edge.parent.children[edge.tokens[0]]


def text(edge):
    return sum((own.tokens for own in edge.path()), ())


def test_what_begins_alike_is_held_once():
    tree = PageTree(100, PAGE, 40)
    first = tree.insert(range(30))
    second = tree.insert([*range(22), *range(50, 58)])
    assert text(first) == tuple(range(30)) and text(second) == (*range(22), *range(50, 58))
    assert first.path()[0] is second.path()[0] and len(first.path()[0].tokens) == 20
    assert tree.insert(range(30)) is first
    assert tree.occupied == 5 + 3 + 3
    check(tree)


def test_an_edge_behind_another_is_found_and_never_cut():
    tree = PageTree(100, PAGE, 40)
    above = tree.insert(range(10))
    one, two = tree.add(above, [7] * 9 + [1]), tree.add(above, [7] * 9 + [2])
    assert one is not two and one.parent is two.parent is above
    assert tree.add(above, [7] * 9 + [1]) is one
    output = tree.add(above, [7] * 9 + [1, 5, 5])
    assert output.parent is one and output.tokens == (5, 5)
    assert tree.insert([*range(10), *[7] * 9, 1, 5, 5]) is output
    check(tree)


def test_a_cut_keeps_who_is_below():
    tree = PageTree(100, PAGE, 40)
    last = tree.insert(range(16))
    last.ready.add("policy")
    child = tree.add(last, [99])
    tree.insert([*range(8), 50])
    assert text(child) == (*range(16), 99)
    assert [len(edge.tokens) for edge in child.path()] == [8, 8, 1]
    assert child.path()[0].ready == {"policy"}
    check(tree)


def test_long_texts_are_laid_out_in_pieces_and_anew():
    tree = PageTree(100, PAGE, 8)
    edge = tree.insert(range(21))
    assert [len(own.tokens) for own in edge.path()] == [8, 8, 5]
    child = tree.add(edge, [1, 2])
    anew = tree.insert([*range(21), 1, 2], anew=True)
    assert [len(own.tokens) for own in anew.path()] == [8, 8, 7] and anew is not child
    assert tree.insert([*range(21), 1, 2], anew=True) is anew  # once only
    check(tree)


def test_the_longest_edge_is_whole_pages():
    with pytest.raises(ValueError, match="whole pages of 4"):
        PageTree(10, PAGE, 9)


def test_the_oldest_goes_first_and_what_is_pinned_stays():
    tree = PageTree(1 + 6, PAGE, 40)
    pinned, old, new = (tree.insert([i] * 8) for i in (1, 2, 3))
    pinned.pin()
    tree.touch(old)
    assert tree.insert([4] * 4) is not None
    left = {edge.tokens[0] for edge in tree.edges()}
    assert left == {1, 2, 4}  # 3 was used longest ago of those that are not pinned
    assert tree.evicted_tokens == 8
    assert tree.insert([5] * 24) is None  # 1 is pinned: four pages can be had
    check(tree)
    pinned.unpin()
    assert tree.insert([5] * 24) is not None
    tree.clear()
    assert tree.occupied == 0
    del new


def test_random_histories():
    rng = random.Random(0)
    for _ in range(30):
        tree = PageTree(rng.randint(8, 60), PAGE, rng.choice([4, 8, 20]))
        pinned, texts = [], [()]
        for _ in range(60):
            beginning = rng.choice(texts)
            beginning = beginning[: rng.randint(0, len(beginning))]
            tokens = (*beginning, *(rng.randint(0, 2) for _ in range(rng.randint(1, 12))))
            live = [edge for edge in pinned if edge.pins]
            if live and rng.random() < 0.4:
                edge = rng.choice(live)
                before = text(edge)
                added = tree.add(edge, tokens)
                assert added is None or text(added) == (*before, *tokens)
            else:
                edge = tree.insert(tokens)
                assert edge is None or text(edge) == tokens
                texts.append(tokens)
                if edge is not None and rng.random() < 0.2:
                    edge.pin()
                    pinned.append(edge)
            if pinned and rng.random() < 0.2:
                pinned.pop().unpin()
            check(tree)
        for edge in pinned:
            edge.unpin()
        tree.clear()
        assert tree.occupied == 0
