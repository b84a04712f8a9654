"""Renewal of the messages of running stages, which stay invisible however long the stages run.

The Redis transport delivers a message again when it was not acknowledged within the visibility timeout, and a
stage may take hours. A long timeout would make the job of a dead worker wait as long. So the timeout is
short, and a live worker keeps moving the time of its messages forward.
"""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError

from tasks.worker.repeating import RepeatingStep

logger = logging.getLogger(__name__)

BEATS_PER_TIMEOUT = 5


class VisibilityStep(RepeatingStep):
    """A consumer step that renews the worker's unacknowledged messages in Redis."""

    def start(self, parent: Any) -> None:
        timeout_s = parent.app.conf.broker_transport_options["visibility_timeout"]
        self.repeat(parent, timeout_s / BEATS_PER_TIMEOUT, renew, parent)


def renew(consumer: Any) -> int:
    """Set the time of the messages that this consumer holds to now; return how many there are."""
    channel = consumer.task_consumer.channel
    held = set(channel.qos._delivered) - set(channel.qos._dirty)  # noqa: SLF001 (kombu offers no other view)
    if not held:
        return 0
    try:
        with channel.conn_or_acquire() as redis:
            # By the clock of Redis: a machine whose own is wrong neither loses its messages to others
            # nor keeps them from others when it dies.
            seconds, _ = redis.time()
            # Only those that are still listed: one that was acknowledged meanwhile must not come back.
            redis.zadd(channel.unacked_index_key, dict.fromkeys(held, seconds), xx=True)
    except (RedisError, OSError):
        logger.warning("messages were not kept invisible: Redis does not answer", exc_info=True)
    return len(held)
