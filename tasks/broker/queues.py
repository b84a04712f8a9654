"""The deployment's queues in Redis: their names, their lists, how many stages wait in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from redis import Redis

from tasks.broker.message_guard import Refused, read_line
from tasks.settings import Settings

PRIORITY_STEPS = (0, 3, 6, 9)
"""Of the transport: a message goes into the list of the step below its priority; 0 is served first."""
_SEPARATOR = "\x06\x16"


def names(settings: Settings) -> tuple[str, ...]:
    """Every queue: that of the processor, and those of the accelerators from the smallest on."""
    return tuple(dict.fromkeys((settings.queue_cpu, *settings.cuda_queue_names)))


def lists(queue: str) -> list[str]:
    """The lists that a queue consists of, the first served first."""
    return [f"{queue}{_SEPARATOR}{step}" if step else queue for step in PRIORITY_STEPS]


def of_list(key: str) -> str:
    """The queue that a list belongs to."""
    return key.split(_SEPARATOR, 1)[0]


def now_s(redis: Redis) -> float:
    """The time by the clock of Redis, which is one for everybody."""
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


def stages_waiting(redis: Redis, settings: Settings) -> dict[str, int]:
    """Stages that wait in each queue, without what is no stage: that has the first list for itself."""
    return _lengths(redis, settings, first=1)


def waiting(redis: Redis, settings: Settings) -> dict[str, int]:
    """Messages that wait in each queue."""
    return _lengths(redis, settings)


def _lengths(redis: Redis, settings: Settings, *, first: int = 0) -> dict[str, int]:
    return {queue: sum(int(redis.llen(key)) for key in lists(queue)[first:]) for queue in names(settings)}


def messages(redis: Redis, settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Every message that waits."""
    for queue in names(settings):
        for key in lists(queue):
            lines: list[bytes] = redis.lrange(key, 0, -1)  # type: ignore[assignment]
            for line in lines:
                yield from _parsed(line)


def _parsed(message: bytes) -> list[Mapping[str, Any]]:
    """A forged one waits for the worker that refuses it, and says nothing here."""
    try:
        found = read_line(message)
    except Refused:
        return []
    return [found] if isinstance(found, dict) else []
