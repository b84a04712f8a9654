"""The reports of live workers: every few seconds each reports that it is up, and what it is busy with."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import Field
from redis import Redis

from nss_train.contract import Frozen
from tasks.broker.queues import now_s

logger = logging.getLogger(__name__)

WORKERS = "nss-train:workers"
"""Hash of worker names and the last report of each."""
UP_S = 60.0
"""Silence after which a worker counts as down."""
FORGOTTEN_S = 3600.0
"""Silence after which a worker is forgotten. One that shuts down cleanly is forgotten at once."""


class WorkerInfo(Frozen):
    """The last report of one worker."""

    seen_s: float
    """Time of the report by the clock of Redis."""
    running: dict[str, int] = Field(default_factory=dict)
    """Stages at work, by the queue that they came from."""
    gpu_bytes: dict[str, int] = Field(default_factory=dict)
    """Memory in use, by device."""


def read(redis: Redis) -> dict[str, WorkerInfo]:
    """Return the last report of each worker. Raises what the connection raises."""
    found: Mapping[bytes, bytes] = redis.hgetall(WORKERS)  # type: ignore[assignment]
    return {name.decode(): WorkerInfo.model_validate_json(text) for name, text in sorted(found.items())}


def publish(redis: Redis, name: str, *, running: Mapping[str, int], gpu_bytes: Mapping[str, int]) -> None:
    """Report that a worker is up, and forget those that are long gone."""
    now = now_s(redis)
    mine = WorkerInfo(seen_s=now, running=dict(running), gpu_bytes=dict(gpu_bytes))
    redis.hset(WORKERS, name, mine.model_dump_json())
    gone = [other for other, said in read(redis).items() if now - said.seen_s > FORGOTTEN_S]
    if gone:
        redis.hdel(WORKERS, *gone)
