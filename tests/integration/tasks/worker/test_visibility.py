"""A message that is worked on stays invisible to other workers, however long that takes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostConnection

from tasks.app import App
from tasks.worker.visibility import renew

LONG_AGO_S = 1_000_000.0


@pytest.fixture
def channel(app: App) -> Iterator[Any]:
    """Take two messages from a queue; their time is long ago."""
    with app.connection_for_read() as connection:
        found = connection.channel()
        queue = connection.SimpleQueue("cpu", channel=found)
        for number in range(2):
            queue.put({"number": number}, serializer="json")
        for _ in range(2):
            assert found.basic_get("cpu", no_ack=False) is not None
        held = app.redis.zrange(found.unacked_index_key, 0, -1)
        app.redis.zadd(found.unacked_index_key, dict.fromkeys(held, LONG_AGO_S))
        yield found


def consumer(channel: Any) -> Any:
    return SimpleNamespace(task_consumer=SimpleNamespace(channel=channel))


def times(app: App, channel: Any) -> list[float]:
    return [score for _, score in app.redis.zrange(channel.unacked_index_key, 0, -1, withscores=True)]


def test_held_messages_get_the_time_of_redis(app: App, channel: Any) -> None:
    assert times(app, channel) == [LONG_AGO_S] * 2
    before_s, _ = app.redis.time()
    assert renew(consumer(channel)) == 2
    assert all(before_s <= time_s <= before_s + 60 for time_s in times(app, channel))


def test_a_message_that_was_acknowledged_meanwhile_does_not_come_back(app: App, channel: Any) -> None:
    acknowledged, _ = app.redis.zrange(channel.unacked_index_key, 0, -1)
    app.redis.zrem(channel.unacked_index_key, acknowledged)
    renew(consumer(channel))
    assert len(times(app, channel)) == 1


def test_a_broker_that_is_lost_is_logged_and_ends_nothing(
    channel: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise LostConnection("away")

    monkeypatch.setattr(channel, "conn_or_acquire", lost)
    assert renew(consumer(channel)) == 2
    assert "messages were not kept invisible" in caplog.text
