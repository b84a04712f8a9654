"""The lease, on real Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from nss_train.contract import Stage
from nss_train.errors import BrokerUnavailable
from tasks.broker.lease import Lease, Renewal, lease_key
from tasks.local.valkey import Valkey


@pytest.fixture
def redis(valkey: Valkey) -> Redis:
    return Redis.from_url(valkey.url)


def test_only_one_holds_a_lease(redis: Redis) -> None:
    first = Lease.acquire(redis, "job-one-1", Stage.TRAIN, ttl_s=60)
    assert first is not None
    assert Lease.acquire(redis, "job-one-1", Stage.TRAIN, ttl_s=60) is None
    assert Lease.acquire(redis, "job-one-1", Stage.SAVE_MODEL, ttl_s=60) is not None
    first.release()
    first.release()
    assert Lease.acquire(redis, "job-one-1", Stage.TRAIN, ttl_s=60) is not None


def test_renewing_puts_the_end_off(redis: Redis) -> None:
    lease = Lease.acquire(redis, "job-two-2", Stage.TRAIN, ttl_s=60)
    assert lease is not None
    redis.pexpire(lease_key("job-two-2", Stage.TRAIN), 1000)
    assert lease.renew() is Renewal.HELD
    assert int(redis.pttl(lease_key("job-two-2", Stage.TRAIN))) > 50_000


def test_a_lease_that_went_to_another_is_lost_and_stays_theirs(redis: Redis) -> None:
    mine = Lease.acquire(redis, "job-three-3", Stage.TRAIN, ttl_s=60)
    assert mine is not None
    redis.delete(lease_key("job-three-3", Stage.TRAIN))
    assert Lease.acquire(redis, "job-three-3", Stage.TRAIN, ttl_s=60) is not None
    assert mine.renew() is Renewal.LOST
    mine.release()
    assert redis.exists(lease_key("job-three-3", Stage.TRAIN))


def test_a_lease_that_redis_forgot_is_regained(redis: Redis) -> None:
    lease = Lease.acquire(redis, "job-five-5", Stage.TRAIN, ttl_s=60)
    assert lease is not None
    redis.delete(lease_key("job-five-5", Stage.TRAIN))
    assert lease.renew() is Renewal.REGAINED
    assert lease.renew() is Renewal.HELD
    assert Lease.acquire(redis, "job-five-5", Stage.TRAIN, ttl_s=60) is None


def test_without_redis_nothing_is_acquired_but_nothing_is_lost_either(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        redis = Redis.from_url(server.url, retry=None)
        lease = Lease.acquire(redis, "job-four-4", Stage.TRAIN, ttl_s=60)
        assert lease is not None
    assert lease.renew() is Renewal.HELD
    lease.release()
    with pytest.raises(BrokerUnavailable):
        Lease.acquire(redis, "job-four-4", Stage.TRAIN, ttl_s=60)
