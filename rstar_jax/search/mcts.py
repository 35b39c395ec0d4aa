"""Monte Carlo tree search over steps: descents by UCT that expand one node after another until an answer is found."""

import collections
from collections.abc import Generator, Sequence
from typing import Any

from rstar_jax.search import uct
from rstar_jax.search.config import SearchConfig
from rstar_jax.search.expansion import Ask, Encode, begin, expand
from rstar_jax.search.tree import ROOT_INDEX, UNVISITED, Tree

__all__ = ["SearchConfig", "rollout", "search_tree"]


def search_tree(tree: Tree, config: SearchConfig, encode: Encode) -> Generator[Ask, Any, None]:
    """Searches one tree, in place, until its rollouts are spent or nothing is left to expand.

    A generator: it yields what it asks (`Sample`, `Run`, `Judge`) and is sent the answers. Rollouts in flight wait for
    each other: what they have to expand is expanded together, a node that two of them came to once.

    Raises: ValueError if the tree of a test-time search carries the ground truth.
    """
    begin(tree, config)
    in_flight = collections.Counter()
    waiting: list[tuple[Generator[int, None, None], int]] = []  # a rollout, and the node that it needs expanded
    left = config.rollouts
    while True:
        while left and len(waiting) < config.rollouts_in_flight and not tree.exhausted[ROOT_INDEX]:
            left -= 1
            waiting += _go_on([rollout(tree, config, in_flight)])
        if not waiting:
            return
        yield from expand(tree, list(dict.fromkeys(node for _, node in waiting)), config, encode)
        waiting = _go_on([going for going, _ in waiting])


def _go_on(rollouts: Sequence[Generator[int, None, None]]) -> list[tuple[Generator[int, None, None], int]]:
    """Lets rollouts go on to the nodes that they need expanded next; those that end are left out."""
    return [(going, node) for going in rollouts if (node := next(going, None)) is not None]


def rollout(tree: Tree, config: SearchConfig, in_flight: collections.Counter) -> Generator[int, None, None]:
    """One descent from the root: by UCT through what is expanded, then expanding each node it comes to.

    A generator of the nodes that it needs expanded. It ends with the first expansion that answers or that leaves
    nothing to go on with. There is no random playout. While it waits it counts in `in_flight` at all nodes above.
    """
    first, node, path = not tree.children(ROOT_INDEX), ROOT_INDEX, []
    # Only with the faults of the released code may a path be as long as max_depth and open: its first rollout stops
    # there, the others expand once more.
    while not (tree.exhausted[node] or (first and tree.depth[node] >= config.max_depth)):
        path.append(node)
        if not tree.children(node):
            in_flight.update(path)
            yield node
            in_flight.subtract(path)
            if tree.exhausted[node] or (tree.has_answer(node) and not config.published_faults):
                return
        child = uct.select(tree, node, config.exploration, unvisited=config.unvisited, in_flight=in_flight)
        if child == UNVISITED:
            tree.exhausted[node] = True
            return
        node = child
