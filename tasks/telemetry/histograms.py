"""Measurements of workers for Prometheus: kept in Redis, where the exporter reads them.

Sums and buckets grow by HINCRBY alone, so that any number of workers write and nothing is read before it is
written. All of it may be lost: Prometheus takes a counter that falls for one that was reset. Workers do not
export it themselves: a pod that takes one stage counts its end and leaves before Prometheus reads it again.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from redis import Redis
from redis.exceptions import RedisError

from nss_train.contract import TRAIN_STEP, Event

logger = logging.getLogger(__name__)

TOTALS = "nss-train:totals"
LOSSES = "nss-train:losses"
COUNTED_S = 7 * 24 * 3600
"""Time for which an ended job is remembered, so that it is counted once."""
FLUSH_S = 2.0
INFINITY = "+Inf"


class StageEnd(StrEnum):
    """The end of an attempt at a stage."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The job failed with it."""
    CANCELLED = "cancelled"
    RETRIED = "retried"
    DRAINED = "drained"
    LOST = "lost"
    """Another attempt took over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """A distribution of seconds for each set of label values."""

    name: str
    labels: tuple[str, ...]
    buckets_s: tuple[float, ...]

    @property
    def key(self) -> str:
        return f"nss-train:histogram:{self.name}"

    def bucket(self, seconds: float) -> str:
        """Return the upper bound, as Prometheus writes it, of the bucket that a value falls into."""
        index = bisect_left(self.buckets_s, seconds)
        return INFINITY if index == len(self.buckets_s) else f"{self.buckets_s[index]:g}"


_LONG_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400, 259200)
STAGE_SECONDS = Histogram(name="stage_seconds", labels=("stage", "outcome"), buckets_s=_LONG_S)
QUEUE_WAIT_SECONDS = Histogram(name="queue_wait_seconds", labels=("queue",), buckets_s=_LONG_S)

HISTOGRAMS = (STAGE_SECONDS, QUEUE_WAIT_SECONDS)


def observe(redis: Redis, histogram: Histogram, labels: tuple[str, ...], seconds: float) -> None:
    """Add one value. A Redis outage does not fail a stage."""
    at_least = max(0.0, seconds)  # clocks of two machines may differ
    try:
        redis.hincrby(histogram.key, "|".join([*labels, histogram.bucket(at_least)]), 1)
        redis.hincrby(histogram.key, "|".join([*labels, "sum_ms"]), round(1000 * at_least))
    except RedisError:
        logger.warning("Redis does not answer: %s is not measured", histogram.name, exc_info=True)


def count_job(redis: Redis, job_id: str, outcome: str) -> None:
    """Count an ended job once, however often it is reported."""
    try:
        if redis.set(f"nss-train:counted:{job_id}", outcome, nx=True, ex=COUNTED_S):
            redis.hincrby(TOTALS, f"jobs|{outcome}", 1)
    except RedisError:
        logger.warning("Redis does not answer: job %s is not counted", job_id, exc_info=True)


class TrainingMeter:
    """The meter of one attempt: it adds up steps and tokens from events, and shows the last loss.

    ``worker`` is its label. A strictly private training has no meter.
    """

    def __init__(self, redis: Redis, *, worker: str) -> None:
        self._redis = redis
        self._worker = worker
        self._started_at = self._flushed_at = time.monotonic()
        self._seen = {"steps": 0, "tokens": 0}
        self._told = {"steps": 0, "tokens": 0}
        self._loss: float | None = None
        self._began = False

    def take(self, event: Event) -> None:
        """Update the totals and the loss from an event."""
        if event.action == "train.started":
            self._began, self._started_at = True, time.monotonic()
            self._seen["steps"] = self._told["steps"] = int(event.fields["step"])
        if event.action == TRAIN_STEP and self._began:
            self._step(event.fields)
            if time.monotonic() - self._flushed_at >= FLUSH_S:
                self._flush()

    def close(self) -> None:
        """Write the last totals and remove the loss: nothing is trained here any more."""
        if self._began:
            self._flush()
            self._try(lambda: self._redis.hdel(LOSSES, self._worker))

    def _step(self, fields: Mapping[str, float]) -> None:
        self._seen["steps"] = int(fields["step"])
        # An event has the mean speed since the start, so that the product is what was trained on.
        seconds = time.monotonic() - self._started_at
        self._seen["tokens"] = max(
            self._seen["tokens"], round(float(fields.get("tokens_per_s", 0)) * seconds)
        )
        self._loss = fields.get("loss")

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        for name, seen in self._seen.items():
            grown = seen - self._told[name]
            if grown > 0 and self._try(partial(self._redis.hincrby, TOTALS, name, grown)):
                self._told[name] = seen
        if self._loss is not None:
            self._try(lambda: self._redis.hset(LOSSES, self._worker, str(self._loss)))

    def _try(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except RedisError:
            logger.debug("Redis does not answer", exc_info=True)
            return False
        return True
