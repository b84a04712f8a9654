"""What workers do from time to time."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

RECONCILE = "nss_train.reconcile"
_TURN = "nss-train:reconcile-turn"


class ReconcileTimer(bootsteps.StartStopStep):
    """A consumer step that asks for a reconciliation; of all workers one does in each interval."""

    requires = {"celery.worker.consumer.tasks:Tasks"}  # noqa: RUF012 (Celery's interface)

    def __init__(self, parent: Any, **options: Any) -> None:
        self._timer: Any = None
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        every_s = parent.app.settings.reconcile_every_s
        if every_s > 0:
            self._timer = parent.timer.call_repeatedly(every_s, ask, (parent.app, every_s))

    def stop(self, _parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def ask(app: Any, every_s: float) -> None:
    """Enqueue a reconciliation unless another worker did so in this interval."""
    try:
        if app.redis.set(_TURN, "taken", nx=True, px=int(every_s * 900)):
            # Without an expiry, which would compare the clocks of two machines.
            app.send_task(RECONCILE, queue=app.settings.queue_cpu)
    except (RedisError, OperationalError, OSError):
        logger.warning("no reconciliation this time: Redis does not answer", exc_info=True)
