"""Monte Carlo tree search over steps: descents by UCT that expand one node after another until an answer is found."""

from collections.abc import Generator
from typing import Any

from rstar_jax.search import uct
from rstar_jax.search.config import SearchConfig
from rstar_jax.search.expansion import Ask, Encode, begin, expand
from rstar_jax.search.tree import ROOT_INDEX, Tree

__all__ = ["SearchConfig", "rollout", "search_tree"]


def search_tree(tree: Tree, config: SearchConfig, encode: Encode) -> Generator[Ask, Any, None]:
    """Searches one tree, in place, until its rollouts are spent or nothing is left to expand.

    A generator: it yields what it asks (`Sample`, `Run`, `Judge`) and is sent the answers.

    Raises: ValueError if the tree of a test-time search carries the ground truth.
    """
    begin(tree, config)
    for _ in range(config.rollouts):
        if tree.exhausted[ROOT_INDEX]:
            return
        yield from rollout(tree, config, encode)


def rollout(tree: Tree, config: SearchConfig, encode: Encode) -> Generator[Ask, Any, None]:
    """One descent from the root: by UCT through what is expanded, then expanding each node it comes to.

    It ends with the first expansion that answers or that leaves nothing to go on with. There is no random playout. At
    least one node is expanded: what is not exhausted has a node to expand below it.
    """
    node = ROOT_INDEX
    while not tree.exhausted[node]:
        if not tree.children(node):
            yield from expand(tree, [node], config, encode)
            if tree.exhausted[node] or tree.has_answer(node):
                return
        node = uct.select(tree, node, config.exploration)
