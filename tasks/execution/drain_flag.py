"""The flag that informs the processes of the stages that their worker leaves its machine."""

from __future__ import annotations

import mmap
import time

_POLL_S = 0.1


class DrainFlag:
    """A flag in memory that the worker's processes share; made before they fork, set once."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    def is_set(self) -> bool:
        return self._memory[0] == 1

    def wait(self, seconds: float) -> bool:
        """Sleep until the time is over or the flag is set; return whether it is set."""
        deadline = time.monotonic() + seconds
        while not self.is_set() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.is_set()
