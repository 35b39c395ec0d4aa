"""Selection and backup: how values steer the next descent (reference: rStar-Math, section 3.2 and Eq. 2)."""

import math
from collections.abc import Mapping

from rstar_jax.search.tree import NO_PARENT, UNVISITED, Kind, Tree

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
    parent_visits = visits.item(node) + in_flight.get(node, 0)
    log_parent = math.log(parent_visits) if parent_visits else 0.0
    best, best_score, unvisited_score = UNVISITED, -math.inf, None
    for child in tree.children(node):
        if exhausted[child]:
            continue
        flights = in_flight.get(child, 0)
        n = visits.item(child) + flights
        if n:
            score = (value_sum.item(child) - flights) / n + c * math.sqrt(log_parent / n)
        else:
            if unvisited_score is None:
                unvisited_score = _unvisited(tree, node, c, unvisited, in_flight)
            score = unvisited_score
        if score > best_score:
            best, best_score = child, score
    return best


def _unvisited(tree: Tree, node: int, c: float, rule: str, in_flight: Mapping[int, int]) -> float:
    """What the unvisited children of `node` score."""
    if rule in ("zero", "infinite"):
        return 0.0 if rule == "zero" else math.inf
    flights = in_flight.get(node, 0)
    parent_visits = tree.visits.item(node) + flights
    if not parent_visits:
        return 0.0
    if rule == "parent":
        parent_q = (tree.value_sum.item(node) - flights) / parent_visits
        return parent_q + c * math.sqrt(math.log(parent_visits))
    tried = [
        tree.visits.item(child) + in_flight.get(child, 0)
        for child in tree.children(node)
        if tree.kind.item(child) != Kind.FAILED
    ]
    tried = [visits for visits in tried if visits]
    return c * math.sqrt(math.log(parent_visits) * len(tried) / sum(tried)) if tried else 0.0


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
