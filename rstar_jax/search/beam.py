"""Step beam search: level by level, the best of all new steps go on, by what the PPM says of them."""

from collections.abc import Generator
from typing import Any

from rstar_jax.search.config import SearchConfig
from rstar_jax.search.expansion import Ask, Encode, begin, expand
from rstar_jax.search.tree import ROOT_INDEX, Kind, Tree


def beam_search(tree: Tree, config: SearchConfig, encode: Encode) -> Generator[Ask, Any, None]:
    """Searches one tree, in place, until its beam is empty. A generator like `search_tree`.

    On each level all nodes of the beam are expanded, and those of their children that did not fail are ranked together
    by their first value, the PPM's score; of equals the one that was sampled first. The best `beam_width` take the
    places: an answer keeps its place for good, a step is expanded next. Answers that rank lower take no place, and are
    answers of the tree all the same. In mode "ppm" an answer ranks by the ground truth, +1 or -1.

    Source: the released code's `beam_search.py`, whose beam holds on to nodes that have answered or failed, so that
    what is sampled under one node becomes a child of another. Here a child never leaves its parent.

    Raises: ValueError if the tree of a test-time search carries the ground truth.
    """
    begin(tree, config)
    beam = [] if tree.exhausted[ROOT_INDEX] else [ROOT_INDEX]
    width = config.beam_width
    while beam:
        yield from expand(tree, beam, config, encode)
        children = [child for node in beam for child in tree.children(node) if tree.kind[child] != Kind.FAILED]
        children.sort(key=lambda child: (-tree.value[child], child))
        beam = [child for child in children[:width] if not tree.is_terminal(child)]
        width -= len(children[:width]) - len(beam)
