"""Several sequences in one row: which go together, as a function of their lengths alone."""

import bisect
from collections.abc import Sequence


def pack(lengths: Sequence[int], length: int) -> list[list[int]]:
    """Places of sequences, row by row, none longer than `length` in all.

    Best fit decreasing: the longest first, each into the fullest row that has room for it. Of equal ones the first.

    Raises: ValueError for a sequence that is longer than a row.
    """
    packed: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room that is left, row), in order
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        own = lengths[place]
        if own > length:
            raise ValueError(f"a sequence of {own} tokens: expected at most {length}, the length of a row")
        at = bisect.bisect_left(free, (own, -1))
        if at == len(free):
            packed.append([place])
            bisect.insort(free, (length - own, len(packed) - 1))
        else:
            room, row = free.pop(at)
            packed[row].append(place)
            bisect.insort(free, (room - own, row))
    return packed
