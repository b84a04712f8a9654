"""What a part of this service needs of the whole: a store, a broker, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from redis import Redis

from tasks.settings import Settings
from tasks.store.base import Store


class Deployment(Protocol):
    """A broker and a store, and the Celery application that sends its messages by them."""

    settings: Settings

    @property
    def store(self) -> Store:
        """Connect on first use."""

    @property
    def redis(self) -> Redis:
        """Connect on first use."""

    def send_task(self, name: str, *, kwargs: Mapping[str, Any], priority: int | None = None) -> Any:
        """Send a message. Raises what the connection raises."""

    def signature(self, name: str, **options: Any) -> Any:
        """Make a Celery signature of a task."""
