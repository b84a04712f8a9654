"""A message is acknowledged or refused exactly once, whatever raises between the queue and the pool."""

from __future__ import annotations

import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tests.pipeline.conftest import worker
from tests.security import hostile, siege
from tests.security.conftest import Target, own_keys, wait_until
from tests.security.messages import PLANTED, envelope, raw, stage


@contextmanager
def planted_worker(folder: Path, valkey: Valkey) -> Iterator[Target]:
    given = {"home": folder / "home", "broker_url": valkey.url, "reconcile_every_s": 0, "warm_hosts": "never"}
    settings, log = Settings.model_validate(given), folder / "cpu.log"
    command = [sys.executable, "-m", "tests.security.planted_app"]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, env=worker_environment(settings), stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            yield Target(settings, log, process.pid)
        finally:
            process.terminate()
            assert process.wait(30) == 0  # it waits for nothing that never comes


def nothing_is_unacknowledged(target: Target) -> bool:
    redis = target.app.redis
    return redis.hlen("unacked") == redis.zcard("unacked_index") == 0


def test_whatever_raises_on_the_way_to_the_pool_costs_its_own_message_alone(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey, planted_worker(tmp_path, valkey) as target:
        assert target.does_honest_work()
        target.said()
        for begin in PLANTED.values():
            for _ in range(3):  # more than the pool has places
                line = envelope("nss_train.save_model", stage(), headers__id=f"{begin}-{uuid.uuid4()}")
                target.push(raw(line))
            assert target.does_honest_work()
            assert target.said().count("a message was refused") == 3
        target.push(raw(envelope("nss_train.planted", {})))
        assert target.does_honest_work()
        wait_until(lambda: nothing_is_unacknowledged(target))


def test_a_message_that_stopped_an_older_worker_is_refused_by_the_next(tmp_path: Path) -> None:
    line = hostile.line("a deep config", random.Random(1))
    with Valkey(tmp_path) as valkey:
        given = {
            "home": tmp_path / "home",
            "broker_url": valkey.url,
            "reconcile_every_s": 0,
            "warm_hosts": "never",
        }
        settings = Settings.model_validate(given)
        for number in range(2):
            log = tmp_path / f"{number}.log"
            with worker(settings, "cpu", log) as process:
                target = Target(settings, log, process.pid)
                target.push(line)
                assert target.does_honest_work()
                wait_until(lambda target=target: nothing_is_unacknowledged(target))  # type: ignore[misc]
                assert "nested more than 32 deep" in target.log


@pytest.mark.parametrize("name", hostile.KINDS)
def test_a_hostile_message_leaves_nothing_behind(name: str, target: Target) -> None:
    before, chance = target.stored(), random.Random(2)
    for _ in range(2):
        target.push(hostile.line(name, chance))
    assert target.does_honest_work()
    wait_until(lambda: nothing_is_unacknowledged(target))
    assert "Unrecoverable error" not in target.log
    made = own_keys(target.stored() - before)
    root = target.settings.home / "store"
    assert all(size_of(root / key) < 100_000 for key in made)


def size_of(path: Path) -> int:
    """Return the size of a file, or 0 for one that was put in its place meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_honest_submissions_are_answered_under_siege(tmp_path: Path) -> None:
    with siege.deployment(tmp_path, concurrency=2, warm_hosts="never") as app:
        found = siege.besiege(app, messages=2 * len(hostile.KINDS), per_s=25, alone=30)
    assert found.besieged_s
    assert found.unacked == found.waiting == 0
