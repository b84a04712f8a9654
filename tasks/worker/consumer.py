"""The consumer of a worker: Celery's, with a heartbeat that lasts while the broker is unreachable."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer


class PatientConsumer(Consumer):
    """A consumer that waits for an unreachable broker as long as it takes, and keeps its heartbeat."""

    def ensure_connected(self, conn: object) -> Any:
        with self.app.heartbeat.keep_alive_while_blocked():
            return super().ensure_connected(conn)
