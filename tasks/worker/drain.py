"""Leaving a machine: the worker's main process says so, and its running stages keep their state and go."""

from __future__ import annotations

import logging
import mmap
import os
import signal
import time
from typing import Any

from celery import bootsteps

logger = logging.getLogger(__name__)

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
        """Sleep, but not on after the flag is set; whether it is."""
        deadline = time.monotonic() + seconds
        while not self.is_set() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.is_set()


class Drain(bootsteps.StartStopStep):
    """A worker step that tells the running stages as soon as the worker shuts down, for whatever reason.

    Celery waits for them then. A second SIGTERM ends the worker at once; the kernel takes its
    processes along, and their messages come again after the visibility timeout.
    """

    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 (Celery's interface)

    def close(self, parent: Any) -> None:
        logger.warning("leaving: running stages keep their state", extra={"action": "worker.draining"})
        parent.app.drain.set()
        signal.signal(signal.SIGTERM, _leave_at_once)


def _leave_at_once(*_: object) -> None:
    os._exit(os.EX_TEMPFAIL)
