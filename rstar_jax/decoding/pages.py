"""Which pages of the pool hold which tokens: a tree of edges on the host, one for each data shard.

An edge is a run of tokens behind those of its parent: a prompt, a step, the output of code. Every edge begins on a page
of its own, so that nothing is ever copied or shared in part: a prefix is the list of its edges' pages, and the rest of
an edge's last page stays empty. Edges that begin alike are cut at a page's end, so a few-shot prompt is held once.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence

Tokens = tuple[int, ...]
_REMEMBERED = 2**20  # texts that were evicted, for `returned_tokens` alone


class Edge:
    """Tokens, and the pages that are theirs.

    ready: the models ("policy", "ppm") that have written keys and values of all tokens into their pools. hidden:
    whether the policy's hidden state of the last token is kept, so that decoding can begin there. value: what the PPM
    says of the text up to here, once it was asked.
    """

    __slots__ = ("children", "hidden", "pages", "parent", "pins", "ready", "tokens", "value")

    def __init__(self, parent: "Edge | None", tokens: Tokens, pages: list[int]):
        self.parent, self.tokens, self.pages = parent, tokens, pages
        self.children: dict[int, list[Edge]] = {}  # by first token
        self.ready: set[str] = set()
        self.hidden = False
        self.value: float | None = None
        self.pins = 0

    def pin(self) -> None:
        """Keeps this edge, and so its path, until `unpin`."""
        self.pins += 1

    def unpin(self) -> None:
        """Takes back one `pin`."""
        self.pins -= 1

    def path(self) -> list["Edge"]:
        """The edges from the root's children down to this one."""
        path, edge = [], self
        while edge.parent is not None:
            path.append(edge)
            edge = edge.parent
        return path[::-1]

    def text(self) -> Tokens:
        """All tokens down to the end of this edge."""
        return tuple(itertools.chain.from_iterable(edge.tokens for edge in self.path()))


class PageTree:
    """The pages of one data shard: page 0 takes what nobody wants to keep, the others are free or an edge's.

    Edges that nobody holds (`Edge.pin`) and that have no children are given up when pages are needed, those that were
    used longest ago first.

    evicted_tokens: of edges that were given up for others. returned_tokens: of those, how many were asked for again.
    """

    def __init__(self, pages: int, page: int, longest: int):
        """pages: how many there are, page 0 included. page: tokens of one. longest: tokens of the longest edge."""
        if longest % page:
            raise ValueError(f"the longest edge ({longest} tokens) must be whole pages of {page}")
        self.page, self.longest, self.total = page, longest, pages - 1
        self.evicted_tokens = self.returned_tokens = 0
        self._evicted: set[int] = set()  # hashes of the texts up to edges that were given up
        self._free = list(range(pages - 1, 0, -1))
        self._root = Edge(None, (), [])
        # Least recently used first. Whoever is used has all its path used, from the end up: children before parents.
        self._used: collections.OrderedDict[Edge, None] = collections.OrderedDict()

    def insert(self, tokens: Sequence[int], *, anew: bool = False) -> Edge | None:
        """The edge at which `tokens` end, with pages for all that was not there; None if there are not enough.

        Cuts edges: ask for what is not ready after all insertions of a batch. anew: in pieces of the greatest length,
        beside whatever else is there of the text.
        """
        tokens = tuple(tokens)
        edge, at = self._pieces(tokens) if anew else self._match(tokens)
        last = self._grow(edge, tokens[at:])
        if last is not None and at < len(tokens) and hash(tokens) in self._evicted:
            self._evicted.remove(hash(tokens))
            self.returned_tokens += len(tokens) - at
        return last

    def add(self, above: Edge, tokens: Sequence[int]) -> Edge | None:
        """The edge at which `tokens` end behind `above`; None if there are not enough pages.

        Cuts nothing: an edge that only begins alike is not shared.
        """
        edge, rest = above, tuple(tokens)
        while rest:
            whole = [child for child in edge.children.get(rest[0], ()) if rest[: len(child.tokens)] == child.tokens]
            if not whole:
                break
            edge = max(whole, key=lambda child: len(child.tokens))
            rest = rest[len(edge.tokens) :]
        return self._grow(edge, rest)

    def touch(self, edge: Edge) -> None:
        """Notes that a path is used now."""
        while edge.parent is not None:
            self._used.move_to_end(edge)
            edge = edge.parent

    def clear(self) -> None:
        """Gives up every edge that is not pinned."""
        while (edge := self._evictable()) is not None:
            self._remove(edge)

    @property
    def occupied(self) -> int:
        """Pages that edges own."""
        return self.total - len(self._free)

    def edges(self) -> Iterator[Edge]:
        """All edges, in no order that matters."""
        return iter(self._used)

    def _grow(self, edge: Edge, tokens: Tokens) -> Edge | None:
        """New edges for `tokens` behind `edge`; the last one, or None, and nothing new, if pages are missing."""
        chain = [edge]
        edge.pin()
        for at in range(0, len(tokens), self.longest):
            own = tokens[at : at + self.longest]
            pages = self._take(-(-len(own) // self.page))
            if pages is None:
                break
            added = Edge(chain[-1], own, pages)
            added.pin()
            chain[-1].children.setdefault(own[0], []).append(added)
            self._used[added] = None
            chain.append(added)
        for own in chain:
            own.unpin()
        if sum(len(added.tokens) for added in chain[1:]) < len(tokens):
            for added in reversed(chain[1:]):
                self._remove(added)
            return None
        self.touch(chain[-1])
        return chain[-1]

    def _pieces(self, tokens: Tokens) -> tuple[Edge, int]:
        """(the edge at which `tokens` end in pieces of the greatest length, their number); else the root and 0."""
        found = [self._root]
        for at in range(0, len(tokens), self.longest):
            own = tokens[at : at + self.longest]
            found = [child for edge in found for child in edge.children.get(own[0], ()) if child.tokens == own]
        return (found[0], len(tokens)) if found else (self._root, 0)

    def _match(self, tokens: Tokens) -> tuple[Edge, int]:
        """(the deepest edge on the way of `tokens`, how many of them it ends after)."""
        edge, at = self._root, 0
        while at < len(tokens):
            rest = tokens[at : at + self.longest]
            shared = [(self._shared(child.tokens, rest), child) for child in edge.children.get(rest[0], ())]
            length, child = max(shared, key=lambda pair: pair[0], default=(0, None))
            if length == 0:
                break
            edge = child if length == len(child.tokens) else self._cut(child, length)
            at += length
        return edge, at

    def _shared(self, edge: Tokens, rest: Tokens) -> int:
        """How many tokens of an edge serve `rest`: all, or those of whole pages."""
        if rest[: len(edge)] == edge:
            return len(edge)
        same = next((i for i, (a, b) in enumerate(zip(edge, rest, strict=False)) if a != b), len(rest))
        return same // self.page * self.page

    def _cut(self, edge: Edge, length: int) -> Edge:
        """Cuts an edge after `length` tokens, whole pages; the lower part stays who it was, the upper one is new."""
        upper = Edge(edge.parent, edge.tokens[:length], edge.pages[: length // self.page])
        upper.ready = set(edge.ready)
        siblings = edge.parent.children[edge.tokens[0]]
        siblings[siblings.index(edge)] = upper
        edge.parent, edge.tokens, edge.pages = upper, edge.tokens[length:], edge.pages[length // self.page :]
        upper.children[edge.tokens[0]] = [edge]
        self._used[upper] = None
        self.touch(upper)
        return upper

    def _take(self, count: int) -> list[int] | None:
        """`count` pages, taken from the edges used longest ago if too few are free."""
        while len(self._free) < count:
            edge = self._evictable()
            if edge is None:
                return None
            self.evicted_tokens += len(edge.tokens)
            if len(self._evicted) < _REMEMBERED:
                self._evicted.add(hash(edge.text()))
            self._remove(edge)
        return [self._free.pop() for _ in range(count)]

    def _evictable(self) -> Edge | None:
        return next((edge for edge in self._used if edge.pins == 0 and not edge.children), None)

    def _remove(self, edge: Edge) -> None:
        siblings = edge.parent.children[edge.tokens[0]]
        siblings.remove(edge)
        if not siblings:
            del edge.parent.children[edge.tokens[0]]
        del self._used[edge]
        self._free.extend(reversed(edge.pages))
