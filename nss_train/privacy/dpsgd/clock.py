"""The visible timing of private steps: on request, they begin in slots of a fixed length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

_EARLY_S = 1e-6
"""Tolerance, in seconds: a time this little after a slot's end still counts as in the slot."""


class Pace(Protocol):
    """A wait between steps."""

    def wait(self) -> None:
        """Return when the next step may begin, or the last one's effects may become visible."""


class Unpaced:
    """No wait: each step follows as soon as the last one is done."""

    def wait(self) -> None:
        """Return at once."""


class Slots:
    """Slots of a fixed length: a step takes one slot, or several whole ones.

    They are no proof: the machine's activity inside a slot can still be observed.
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
        # Counted from the slot's nominal beginning: rounding and late wake-ups do not add up.
        end = self._began + max(1, math.ceil(slots)) * self._slot_s
        while (left := end - self._now()) > 0:
            self._sleep(left)
        self._began = end
