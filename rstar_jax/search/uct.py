"""Selection and backup: how values steer the next descent (reference: rStar-Math, section 3.2 and Eq. 2)."""

import math
from collections.abc import Mapping

from rstar_jax.search.tree import NO_PARENT, UNVISITED, Tree

NOBODY: Mapping[int, int] = {}


def exploration(parent_visits: int, visits: int, c: float) -> float:
    """The exploration term of UCT, c * sqrt(ln N(parent) / N), and 0 where either was never visited."""
    if parent_visits == 0 or visits == 0:
        return 0.0
    return c * math.sqrt(math.log(parent_visits) / visits)


def uct(q: float, parent_visits: int, visits: int, c: float) -> float:
    """UCT(s) = Q(s) + c * sqrt(ln N(parent) / N(s)) of a visited child (rStar-Math, Eq. 1)."""
    return q + exploration(parent_visits, visits, c)


def select(tree: Tree, node: int, c: float, *, unvisited: str, in_flight: Mapping[int, int] = NOBODY) -> int:
    """The child with the highest UCT among those with something left to expand; the first of equals.

    unvisited: `SearchConfig.unvisited`. in_flight: rollouts that wait at a node or below it, each a visit worth -1.
    UNVISITED if nothing is left. A loop over floats: children are few, so arrays would cost more than they save.
    """
    visits, value_sum, exhausted = tree.visits, tree.value_sum, tree.exhausted
    parent_flights = in_flight.get(node, 0)
    parent_visits = visits.item(node) + parent_flights
    log_parent = math.log(parent_visits) if parent_visits else 0.0
    if unvisited == "parent":
        parent_q = (value_sum.item(node) - parent_flights) / parent_visits if parent_visits else 0.0
        unvisited_score = parent_q + c * math.sqrt(log_parent)
    else:
        unvisited_score = 0.0 if unvisited == "zero" else math.inf
    best, best_score = UNVISITED, -math.inf
    for child in tree.children(node):
        if exhausted[child]:
            continue
        flights = in_flight.get(child, 0)
        n = visits.item(child) + flights
        score = (value_sum.item(child) - flights) / n + c * math.sqrt(log_parent / n) if n else unvisited_score
        if score > best_score:
            best, best_score = child, score
    return best


def backup(tree: Tree, leaf: int, value: float) -> None:
    """Adds `value`, one visit, to the leaf and to every node above it (rStar-Math, Eq. 2)."""
    node = leaf
    while node != NO_PARENT:
        tree.update(node, value)
        node = tree.parent.item(node)


def close_exhausted(tree: Tree, node: int, *, climb: bool = True) -> None:
    """Marks `node`, just expanded, as exhausted if nothing is left to expand below it; with `climb` its ancestors too.

    The released code notices this one level a rollout, which costs rollouts that expand nothing.
    """
    exhausted = tree.exhausted
    while node != NO_PARENT and all(exhausted[child] for child in tree.children(node)):
        exhausted[node] = True
        node = tree.parent.item(node) if climb else NO_PARENT
