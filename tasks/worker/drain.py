"""The drain of a worker: its main process sets a flag, and its running stages save their state and end."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

from celery import bootsteps

logger = logging.getLogger(__name__)


class DrainStep(bootsteps.StartStopStep):
    """A worker step that signals the running stages as soon as the worker shuts down, for whatever reason.

    Celery then waits for them. A second SIGTERM ends the worker at once; the kernel ends its processes with
    it, and their messages are delivered again after the visibility timeout.
    """

    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 (Celery's interface)

    def close(self, parent: Any) -> None:
        logger.warning("leaving: running stages keep their state", extra={"action": "worker.draining"})
        parent.app.drain.set()
        signal.signal(signal.SIGTERM, _leave_at_once)


def _leave_at_once(*_: object) -> None:
    os._exit(os.EX_TEMPFAIL)
