"""The deployment's queues in Redis: their names, their lists, how many stages wait in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from redis import Redis

from tasks.broker.message_guard import Refused, read_line
from tasks.settings import Settings

PRIORITY_STEPS = (0, 3, 6, 9)
"""Priority steps of the transport: a message goes into the list of the step below its priority; 0 is served
first."""
_SEPARATOR = "\x06\x16"


def names(settings: Settings) -> tuple[str, ...]:
    """Return every queue: that of the CPU, then those of the accelerators from the smallest on."""
    return tuple(dict.fromkeys((settings.queue_cpu, *settings.cuda_queue_names)))


def lists(queue: str) -> list[str]:
    """Return the lists that a queue consists of, in the order in which they are served."""
    return [f"{queue}{_SEPARATOR}{step}" if step else queue for step in PRIORITY_STEPS]


def of_list(key: str) -> str:
    """Return the queue that a list belongs to."""
    return key.split(_SEPARATOR, 1)[0]


def now_s(redis: Redis) -> float:
    """Return the time by the clock of Redis, which is the same for all machines."""
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


def stages_waiting(redis: Redis, settings: Settings) -> dict[str, int]:
    """Return how many stages wait in each queue; other tasks have the first list for themselves."""
    return _lengths(redis, settings, first=1)


def waiting(redis: Redis, settings: Settings) -> dict[str, int]:
    """Return how many messages wait in each queue."""
    return _lengths(redis, settings)


def _lengths(redis: Redis, settings: Settings, *, first: int = 0) -> dict[str, int]:
    return {queue: sum(int(redis.llen(key)) for key in lists(queue)[first:]) for queue in names(settings)}


def messages(redis: Redis, settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Yield every message that waits."""
    for queue in names(settings):
        for key in lists(queue):
            lines: list[bytes] = redis.lrange(key, 0, -1)  # type: ignore[assignment]
            for line in lines:
                yield from _parsed(line)


def _parsed(message: bytes) -> list[Mapping[str, Any]]:
    """Return a message in a list; a forged one gives none, and waits for the worker that refuses it."""
    try:
        found = read_line(message)
    except Refused:
        return []
    return [found] if isinstance(found, dict) else []
