"""Memory in huge pages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nss_train.huge_pages import HUGE_PAGE_BYTES

HELD = 64 * HUGE_PAGE_BYTES
"""Far beyond what malloc keeps in its heap: it has a mapping of its own."""
SCRIPT = f"""
import re
from pathlib import Path
from nss_train.huge_pages import collapse

def huge():
    return 1024 * int(re.search(r"AnonHugePages: +(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])

held = bytearray(b"x") * {HELD}
before = huge()
print(collapse(), huge() - before, held.count(b"x"), flush=True)
"""


@pytest.mark.skipif(tuple(map(int, os.uname().release.split(".")[:2])) < (6, 1), reason="since Linux 6.1")
def test_what_a_process_holds_moves_into_huge_pages_as_it_is() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    pages, moved, kept = map(int, done.stdout.split())
    assert kept == HELD
    assert pages >= 63
    assert moved >= 63 * HUGE_PAGE_BYTES
