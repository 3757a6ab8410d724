"""Large pages: the system is asked for them, for whole pages within what is named and for nothing else."""

import ctypes
import mmap
from pathlib import Path

import pytest

from index.memory import in_large_pages

LARGE = 2 << 20
needs_large_pages = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system knows no large pages"
)


def advised(address: int) -> bool:
    """Whether large pages are asked for at an address of this process."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, dash, rest = line.partition("-")
        if dash and " " not in first:
            inside = int(first, 16) <= address < int(rest.split()[0], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("the address is not mapped")


@needs_large_pages
def test_large_pages_are_asked_for_within_what_is_named() -> None:
    with mmap.mmap(-1, 6 * LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = (ctypes.c_char * len(memory)).from_buffer(memory)
        first = -(-ctypes.addressof(view) // LARGE) * LARGE
        in_large_pages(first + 1, 3 * LARGE)
        assert [advised(first + number * LARGE) for number in range(4)] == [False, True, True, False]
        in_large_pages(first + 3 * LARGE, LARGE - 1)
        assert not advised(first + 3 * LARGE)
        del view
