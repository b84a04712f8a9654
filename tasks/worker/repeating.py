"""A step of the worker's consumer that does something again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps


class RepeatingStep(bootsteps.StartStopStep):
    """A consumer step that calls an action every few seconds while the worker's event loop turns.

    A subclass starts it with :meth:`repeat`; a consumer that has lost its broker stops and starts its steps.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}  # noqa: RUF012 (Celery's interface)

    def __init__(self, parent: object, **options: object) -> None:
        self._timer: Any = None
        super().__init__(parent, **options)

    def repeat(self, parent: Any, every_s: float, action: Callable[..., object], *arguments: Any) -> None:
        """Call ``action`` with ``arguments`` every ``every_s`` seconds."""
        self._timer = parent.timer.call_repeatedly(every_s, action, arguments)

    def stop(self, _parent: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
