"""The consumer of a worker: Celery's, which does not fall silent while the broker is away."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer


class PatientConsumer(Consumer):
    """Waits for a broker that is away, however long that takes, and its heart beats on."""

    def ensure_connected(self, conn: Any) -> Any:
        with self.app.heartbeat.keep_alive_while_blocked():
            return super().ensure_connected(conn)
