"""Celery's events without its endless retries: they would put a worker's main process to sleep."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher


class PromptDispatcher(EventDispatcher):
    """An event dispatcher that keeps what it cannot send, until the consumer has connected again.

    Celery's heartbeat asks for retries without an end. The main process that sleeps between them hears no
    signal, does not beat for its health check, and never comes to :meth:`PatientConsumer.ensure_connected`.
    """

    def send(self, type: str, *arguments: Any, **options: Any) -> Any:  # noqa: A002 (Celery's name)
        return super().send(type, *arguments, **options | {"retry": False})


class PromptEvents(Events):
    """Celery's events, sent by a :class:`PromptDispatcher`."""

    dispatcher_cls = "tasks.worker.events:PromptDispatcher"
