"""The interface that parts of this service use: a store, a broker, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from redis import Redis

from tasks.settings import Settings
from tasks.store.base import Store


class Deployment(Protocol):
    """A broker, a store, and the Celery application that sends messages through the broker."""

    settings: Settings

    @property
    def store(self) -> Store:
        """Return the store, connected on first use."""

    @property
    def redis(self) -> Redis:
        """Return the Redis client, connected on first use."""

    def send_task(self, name: str, *, kwargs: Mapping[str, object], priority: int | None = None) -> Any:
        """Send a message. Raises what the connection raises."""

    def signature(self, name: str, **options: object) -> Any:
        """Make a Celery signature of a task."""
