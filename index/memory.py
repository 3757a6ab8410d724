"""Large pages for memory that is read here and there: with small ones, finding a page takes as long as reading it."""

import ctypes
import sys

_LARGE = 2 << 20
_ADVICE = (14, 25)
"""Linux's MADV_HUGEPAGE, and MADV_COLLAPSE, which makes at once what the kernel else makes in its own time."""


def in_large_pages(address: int, size: int) -> None:
    """Ask the system to hold memory in large pages; where it knows none, or has none left, nothing changes.

    Args:
        address: Where the memory begins.
        size: How many bytes it has; what is smaller than a large page is left alone.
    """
    first, end = -(-address // _LARGE) * _LARGE, (address + size) // _LARGE * _LARGE
    if end <= first or not sys.platform.startswith("linux"):
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for advice in _ADVICE:
        advise(first, end - first, advice)
