"""Memory in huge pages, of which a fork copies one entry of the page table instead of 512."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HUGE_PAGE_BYTES = 2 * 2**20
"""Size on x86-64, and on arm64 with pages of 4 KiB."""
_MADV_COLLAPSE = 25
_PRIVATE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *(\[heap\])?")
"""A line of /proc/PID/maps about memory that is this process's own, and no file's."""


def collapse() -> int:
    """Move this process's memory into huge pages, where it fills them; return their number.

    A page that cannot be moved stays as it is: so do all on a kernel before Linux 6.1.
    """
    if sys.platform != "linux":
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(madvise(start, HUGE_PAGE_BYTES, _MADV_COLLAPSE) == 0 for start in list(_places()))


def _places() -> Iterator[int]:
    """Yield the addresses at which a huge page of private memory could begin."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        found = _PRIVATE.fullmatch(line)
        if found:
            first, end = int(found[1], 16), int(found[2], 16)
            aligned = -(-first // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
            yield from range(aligned, end - HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES)
