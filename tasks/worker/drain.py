"""Leaving a machine: the worker's main process says so, and its running stages keep their state and go."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

from celery import bootsteps

logger = logging.getLogger(__name__)


class DrainStep(bootsteps.StartStopStep):
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
