"""The flag of a worker at a strictly private stage: measurements of its machine are not reported then."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

_PLACES = 4096


class Unseen:
    """Memory that the worker's processes share, with a place for each; made before they fork.

    A process that is killed leaves its place taken, so that nothing is reported by mistake.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PLACES)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Take this process's place inside the block."""
        place = os.getpid() % _PLACES
        self._memory[place] = 1
        try:
            yield
        finally:
            self._memory[place] = 0

    def __bool__(self) -> bool:
        """Tell whether any process is at a strictly private stage."""
        return any(self._memory[:])
