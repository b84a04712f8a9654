"""When a private step may be seen to begin: where it is asked for, on slots of a fixed length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

_EARLY_S = 1e-6
"""So little before a slot's end is at it."""


class Pace(Protocol):
    """Waits between steps."""

    def wait(self) -> None:
        """Return when the next step may begin, or what follows a step be seen."""


class Unpaced:
    """Steps follow each other as they are done."""

    def wait(self) -> None:
        """Return at once."""


class Slots:
    """Each step takes a slot; one that takes longer takes whole ones.

    Nothing is proved by that: what a machine does inside a slot can still be heard or measured.
    """

    def __init__(
        self,
        slot_s: float,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._slot_s, self._now, self._sleep = slot_s, now, sleep
        self._began: float | None = None

    def wait(self) -> None:
        """Return at the end of the slot; the first one begins with the first call."""
        if self._began is None:
            self._began = self._now()
            return
        slots = (self._now() - self._began - _EARLY_S) / self._slot_s
        # From the beginning each time: rounding and late awakenings do not add up.
        end = self._began + max(1, math.ceil(slots)) * self._slot_s
        while (left := end - self._now()) > 0:
            self._sleep(left)
        self._began = end
