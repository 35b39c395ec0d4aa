"""Selection and backup: how values steer the next descent (reference: rStar-Math, section 3.2 and Eq. 2)."""

import math

from rstar_jax.search.tree import NO_PARENT, UNVISITED, Tree


def exploration(parent_visits: int, visits: int, c: float) -> float:
    """The exploration term of UCT, c * sqrt(ln N(parent) / N), and 0 where either was never visited.

    The released code does so deliberately (`mcts_node.py`; issue 32 of microsoft/rStar): an unvisited child scores its
    Q, which is 0, and not infinity, so that a good child is followed before its siblings are tried.
    """
    if parent_visits == 0 or visits == 0:
        return 0.0
    return c * math.sqrt(math.log(parent_visits) / visits)


def uct(q: float, parent_visits: int, visits: int, c: float) -> float:
    """UCT(s) = Q(s) + c * sqrt(ln N(parent) / N(s)) (rStar-Math, Eq. 1), with the exploration term above."""
    return q + exploration(parent_visits, visits, c)


def select(tree: Tree, node: int, c: float) -> int:
    """The child with the highest UCT among those with something left to expand; the first of equals.

    UNVISITED if nothing is left. A loop over floats: children are few, so arrays would cost more than they save.
    """
    visits, value_sum, exhausted = tree.visits, tree.value_sum, tree.exhausted
    parent_visits = visits.item(node)
    log_parent = math.log(parent_visits) if parent_visits else 0.0
    best, best_score = UNVISITED, -math.inf
    for child in tree.children(node):
        if exhausted[child]:
            continue
        n = visits.item(child)
        score = value_sum.item(child) / n + c * math.sqrt(log_parent / n) if n else 0.0
        if score > best_score:
            best, best_score = child, score
    return best


def backup(tree: Tree, leaf: int, value: float) -> None:
    """Adds `value`, one visit, to the leaf and to every node above it (rStar-Math, Eq. 2)."""
    node = leaf
    while node != NO_PARENT:
        tree.update(node, value)
        node = tree.parent.item(node)


def close_exhausted(tree: Tree, node: int) -> None:
    """Marks `node`, just expanded, and its ancestors as exhausted as far up as nothing is left to expand.

    The released code notices this one level a rollout, which costs rollouts that expand nothing.
    """
    exhausted = tree.exhausted
    while node != NO_PARENT and all(exhausted[child] for child in tree.children(node)):
        exhausted[node] = True
        node = tree.parent.item(node)
