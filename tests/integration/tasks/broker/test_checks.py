"""A broker's settings, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from tasks.broker.checks import weaknesses
from tasks.local.valkey import Valkey
from tasks.monitoring.doctor import examine
from tasks.settings import Settings


@pytest.fixture
def redis(tmp_path: Path) -> Redis:
    with Valkey(tmp_path) as valkey:
        yield Redis.from_url(valkey.url)


def test_what_may_lose_messages_is_named(redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("appendonly", "no")
    assert [problem.field for problem in weaknesses(redis)] == ["maxmemory-policy", "appendonly"]


def test_safe_settings_are_not_complained_about(redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("appendonly", "yes")
    assert weaknesses(redis) == []


def test_doctor_tells_weak_settings(settings: Settings) -> None:
    (broker,) = (finding for finding in examine(settings) if finding.name == "broker")
    assert broker.ok
    assert ("appendonly" in broker.found) == bool(
        weaknesses(Redis.from_url(settings.broker_url.get_secret_value()))
    )
