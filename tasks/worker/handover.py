"""The handover from consumer to pool: a request that fails there is refused once, and nothing waits for it.

Celery takes a slot of the pool before it writes a request there, and frees it when the request ends. A
request that cannot be written, because it cannot be pickled, never ends.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.apps.worker import Worker
from celery.worker import state
from celery.worker.request import Request

from tasks.submission.answers import Answers
from tasks.worker.heartbeat import Heartbeat

logger = logging.getLogger(__name__)


class GuardedWorker(Worker):  # type: ignore[misc]  # Celery is not typed
    """A worker that frees what a failed handover had taken."""

    def on_before_init(self, quiet: bool = False, **options: object) -> None:
        """Give the application what a worker's process alone has, however the worker is started."""
        settings = self.app.settings
        self.app.heartbeat = Heartbeat(settings.heartbeats_dir)
        self.app.conf.broker_transport_options["tell_refused"] = Answers(settings).refused
        super().on_before_init(quiet=quiet, **options)

    def _process_task(self, request: object) -> None:
        jobs = self.pool._pool._cache  # noqa: SLF001 (the pool's only list of what it waits for)
        before = set(jobs)
        try:
            super()._process_task(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next message must find a place
            for number in set(jobs) - before:
                jobs[number].discard()
            self._quick_release()
            state.task_ready(request)
            _refuse(request, error)


class GuardedRequest(Request):  # type: ignore[misc]
    """A request whose end is reported to the broker even if handling a failure fails half-way."""

    def on_failure(self, exc_info: object, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        try:
            # Celery raises a task's MemoryError again, in the process that serves all the others.
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        except Exception as error:  # noqa: BLE001 - the same
            _refuse(self, error)
            return None


def _refuse(request: Any, error: Exception) -> None:
    fields = {"action": "message.refused", "task_id": ascii(request.id)[1:-1]}
    logger.error("a message was refused: %s", type(error).__name__, exc_info=error, extra=fields)
    request.reject(requeue=False)
