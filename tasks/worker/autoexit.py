"""The end of a worker after so much work or idle time: for pods that take one stage each.

A stage counts when this worker brought it to its end: committed, failed for good or cancelled. A delivery
that did no work (another worker holds the stage, or its job has ended), an attempt that is handed back for
another try and one that another worker took over do not count; the worker continues to wait for a stage of
its own.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from typing import Any

from celery.worker import state

from tasks.worker.repeating import RepeatingStep

logger = logging.getLogger(__name__)

LOOK_S = 0.5


class ExitPolicy:
    """The limits of a worker, and what its processes have done so far. Made before they fork."""

    def __init__(self, *, max_jobs: int | None = None, idle_exit_s: float | None = None) -> None:
        self.max_jobs = max_jobs
        self.idle_exit_s = idle_exit_s
        self._done = multiprocessing.get_context("fork").Value("L", 0)
        self._busy_at = time.monotonic()

    def begin(self) -> None:
        """Start the idle time: the worker is connected."""
        self._busy_at = time.monotonic()

    def count(self) -> None:
        """Count a stage that has ended."""
        with self._done:
            self._done.value += 1

    def has_room(self, at_work: int) -> bool:
        """Tell whether another stage may be taken while ``at_work`` are worked on."""
        return self.max_jobs is None or self._done.value + at_work < self.max_jobs

    def is_over(self, at_work: int) -> bool:
        """Tell whether it is time to leave."""
        if at_work:
            self._busy_at = time.monotonic()
            return False
        idle_s = time.monotonic() - self._busy_at
        return not self.has_room(0) or (self.idle_exit_s is not None and idle_s >= self.idle_exit_s)


class ExitStep(RepeatingStep):
    """A consumer step that takes no stage too many, and ends the worker when its stint is over."""

    def include_if(self, parent: Any) -> bool:
        return parent.app.exit_policy is not None

    def start(self, parent: Any) -> None:
        policy = parent.app.exit_policy
        policy.begin()
        _limit(parent.task_consumer.channel.qos, policy)
        self.repeat(parent, LOOK_S, leave_when_over, policy)


def _limit(qos: Any, policy: ExitPolicy) -> None:
    """Let the channel fetch no message beyond the stint. Celery limits its own prefetch in this way."""
    may = qos.can_consume
    qos.can_consume = lambda: policy.has_room(len(state.reserved_requests)) and may()


def leave_when_over(policy: ExitPolicy) -> None:
    if state.should_stop is None and policy.is_over(len(state.reserved_requests)):
        logger.info("the stint is over: leaving", extra={"action": "worker.stint_over"})
        state.should_stop = os.EX_OK
