"""Lays the heap that all forks share on huge pages: a fork then copies fewer page table entries, and frees fewer."""

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_COLLAPSE = 25  # MADV_COLLAPSE, Linux 6.1
_HUGE = 2 << 20


def open_maps() -> int:
    """A descriptor of this process' memory map, to be opened while files outside the libraries still can be."""
    try:
        return os.open("/proc/self/maps", os.O_RDONLY)
    except OSError:
        return os.open(os.devnull, os.O_RDONLY)


def collapse(maps: int) -> int:
    """Collapses every block of private memory that is at least half in use; returns their number, 0 where refused.

    maps: from `open_maps`, of this process or of the one that it was forked from since. It is closed.
    """
    with os.fdopen(maps) as file:
        lines = [line.split() for line in file]
    blocks = 0
    in_use = (ctypes.c_ubyte * (_HUGE // mmap.PAGESIZE))()
    for span, permissions, _, _, _, *name in lines:
        if permissions != "rw-p" or name not in ([], ["[heap]"]):
            continue
        first, last = (int(edge, 16) for edge in span.split("-"))
        for start in range(-(-first // _HUGE) * _HUGE, last - _HUGE + 1, _HUGE):
            address, length = ctypes.c_void_p(start), ctypes.c_size_t(_HUGE)
            if _libc.mincore(address, length, in_use) == 0 and sum(map(bool, in_use)) * 2 >= len(in_use):
                blocks += _libc.madvise(address, length, _COLLAPSE) == 0
    return blocks
