"""A deployment with one private job, and the ledger that it is charged to."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.integration.tasks.jobs.privacy.deployments import PLAN, Deployment


@pytest.fixture
def ledger(store: LocalStore) -> DatasetLedger:
    return DatasetLedger(store, PLAN.dataset)


@pytest.fixture
def redis(valkey: Valkey) -> Redis:
    found = Redis.from_url(valkey.url)
    found.flushall()
    return found


@pytest.fixture
def deployment(store: LocalStore, settings: Settings, redis: Redis, tmp_path: Path) -> Deployment:
    return Deployment(store, settings, redis, tmp_path)
