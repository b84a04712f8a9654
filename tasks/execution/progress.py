"""The progress of a stage: to Redis for subscribers, to Celery for Flower, to the store for `status`."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from nss_train.contract import Event, Stage
from nss_train.errors import StoreUnavailable
from tasks.jobs.gate import Gate
from tasks.jobs.keys import Keys
from tasks.store.base import Store
from tasks.telemetry.histograms import TrainingMeter

logger = logging.getLogger(__name__)

STREAM_LENGTH = 1000
STREAM_TTL_S = 7 * 24 * 3600
SNAPSHOT_S = 2.0
LINES = 1000
"""Most lines of the log that a strictly private stage hands out."""


def stream_key(job_id: str) -> str:
    return f"nss-train:progress:{job_id}"


class Progress:
    """The recorder of one attempt's events. A Redis outage does not affect the stage."""

    def __init__(
        self,
        *,
        redis: Redis,
        store: Store,
        job_id: str,
        stage: Stage,
        attempt: int,
        send_event: Callable[..., Any],
        meter: TrainingMeter | None,
        gate: Gate,
    ) -> None:
        self._redis = redis
        self._store = store
        self._stream = stream_key(job_id)
        self._key = Keys(job_id).progress(stage, attempt)
        self._names = {"job_id": job_id, "stage": stage.value, "attempt": attempt}
        self._send_event = send_event
        self._meter = meter
        self._gate = gate
        self._log = Keys(job_id).log(stage, attempt)
        self._lines: deque[str] = deque(maxlen=LINES)
        self._last: Event | None = None
        self._stored_at = 0.0
        self._redis_is_away = False

    def report(self, event: Event) -> None:
        """Publish what may be published of an event, everywhere."""
        if self._meter is not None:
            self._meter.take(event)
        told = self._gate.event(event)
        if told is not None:
            self._tell(told)

    def _tell(self, event: Event) -> None:
        words = event.message or event.action
        logger.info("%s: %s", self._names["stage"], words, extra={"action": event.action})
        self._last = event
        self._lines.append(words)
        self._publish(event)
        if time.monotonic() - self._stored_at >= SNAPSHOT_S:
            self._snapshot()

    def close(self) -> None:
        """Store the last event, so that `status` does not stop two seconds early."""
        self._snapshot()
        if self._meter is not None:
            self._meter.close()

    def _publish(self, event: Event) -> None:
        document = self._names | event.model_dump(mode="json")
        try:
            self._redis.xadd(
                self._stream, {"event": json.dumps(document)}, maxlen=STREAM_LENGTH, approximate=True
            )
            self._redis.expire(self._stream, STREAM_TTL_S)
            self._send_event("task-progress", **self._names | event.fields | {"result": self._line(event)})
        except (RedisError, OperationalError, OSError):
            if not self._redis_is_away:
                logger.warning("progress is not published: Redis does not answer", exc_info=True)
            self._redis_is_away = True
        else:
            self._redis_is_away = False

    def _line(self, event: Event) -> str:
        """Return what Flower shows as the result of a task that has none yet."""
        left = f", {event.fields['eta_s']:.0f} s left" if "eta_s" in event.fields else ""
        return f"{self._names['job_id']} {self._names['stage']}: {event.message or event.action}{left}"

    def _snapshot(self) -> None:
        if self._last is None:
            return
        self._stored_at = time.monotonic()
        document = json.dumps(self._last.fields | {"action": self._last.action})
        try:
            self._store.write(self._key, document.encode())
            if self._gate.strict:  # what the stage prints is for its operator
                self._store.write(self._log, "".join(f"{line}\n" for line in self._lines).encode())
        except StoreUnavailable:
            logger.warning("progress is not stored: the store does not answer", exc_info=True)
