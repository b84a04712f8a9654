"""The events of a worker never make its main process wait for the broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.app import App, make_app
from tasks.local.valkey import Valkey
from tasks.settings import Settings


@pytest.mark.timeout(60)
def test_an_event_waits_for_the_next_connection_and_its_process_does_not(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey") as broker:
        app = make_app(Settings.model_validate({"home": tmp_path / "home", "broker_url": broker.url}))
        with app.connection_for_write() as connection:
            before = app.events.Dispatcher(connection, hostname="cpu@test")
            before.send("worker-online")
            broker.kill()
            before.send("worker-heartbeat", retry=True)
            broker.start()
        assert topic_published_after(before, app).endswith(b"worker.heartbeat")


def topic_published_after(before: object, app: App) -> bytes:
    """Connect as a consumer does that lost its broker, and return the topic of what its dispatcher sends."""
    with app.redis.pubsub() as listener, app.connection_for_write() as connection:
        listener.psubscribe("*celeryev*")
        listener.get_message(timeout=5)  # the subscription itself
        dispatcher = app.events.Dispatcher(connection, hostname="cpu@test")
        dispatcher.extend_buffer(before)
        dispatcher.flush()
        event = listener.get_message(timeout=5)
        assert event is not None
        return bytes(event["channel"])
