"""A worker leaves after so many stages of its own, or after so long without one."""

from __future__ import annotations

import multiprocessing

import pytest

from tasks.worker import autoexit
from tasks.worker.autoexit import ExitPolicy


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        patch.setattr(autoexit.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_stages_at_work_count_towards_those_that_may_be_taken() -> None:
    policy = ExitPolicy(max_jobs=2)
    assert [policy.has_room(at_work) for at_work in (0, 1, 2)] == [True, True, False]
    policy.count()
    assert [policy.has_room(at_work) for at_work in (0, 1)] == [True, False]


def test_it_leaves_once_its_stages_have_ended_and_not_while_one_is_at_work() -> None:
    policy = ExitPolicy(max_jobs=1)
    assert not policy.is_over(0)
    policy.count()
    assert not policy.is_over(1)
    assert policy.is_over(0)


def test_a_stage_that_a_forked_process_has_ended_counts() -> None:
    policy = ExitPolicy(max_jobs=1)
    process = multiprocessing.get_context("fork").Process(target=policy.count)
    process.start()
    process.join(60)
    assert policy.is_over(0)


def test_idle_time_begins_with_the_connection_and_again_with_each_stage(clock: Clock) -> None:
    policy = ExitPolicy(idle_exit_s=10.0)
    clock.now_s += 60
    policy.begin()
    clock.now_s += 9
    assert not policy.is_over(0)
    assert not policy.is_over(1)
    clock.now_s += 9
    assert not policy.is_over(0)
    clock.now_s += 1
    assert policy.is_over(0)


def test_without_limits_a_worker_stays(clock: Clock) -> None:
    policy = ExitPolicy()
    policy.count()
    clock.now_s += 1e9
    assert policy.has_room(1_000)
    assert not policy.is_over(0)
