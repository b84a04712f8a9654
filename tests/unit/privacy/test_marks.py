"""Times at which a private training reports, pays or saves: few marks that are public beforehand."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.contract import CheckpointPolicy, Event
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.step_budget import StepBudget
from nss_train.privacy.dpsgd.clock import Slots
from nss_train.privacy.dpsgd.progress import APART_S, MOST_MARKS, Marks, ReportMarks
from nss_train.training.checkpoint import Checkpoints
from nss_train.training.reports.callbacks import TimeLimit

from .plans import plan

STEPS = st.integers(1, 20_000)
STEP_S = st.floats(0.001, 500)


@given(steps=STEPS, step_s=STEP_S)
def test_marks_are_few_and_far_apart_and_the_last_step_is_one(steps: int, step_s: float) -> None:
    marks = Marks.of(steps, step_s=step_s)
    found = [0, *(step for step in range(1, steps + 1) if marks.at(step))]
    assert len(found) <= MOST_MARKS
    assert found[-1] == steps
    apart = [(after - before) * step_s for before, after in pairwise(found)]
    assert all(seconds >= APART_S * (1 - 1e-9) for seconds in apart) or found == [0, steps]


@given(steps=STEPS, step_s=STEP_S)
def test_a_lost_machine_costs_a_twentieth_at_most_and_marks_end_what_is_paid(
    steps: int, step_s: float
) -> None:
    marks, done = Marks.of(steps, step_s=step_s), 0
    while done < steps:
        paid = marks.paid_up_to(done)
        assert 0 < paid - done <= max(1, steps / 20)
        assert not any(marks.at(step) for step in range(done + 1, paid))
        done = paid


class Clock:
    """A clock that is set, and the sleeps on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def state(step: int, steps: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=steps)


def test_a_mark_says_what_is_public_and_is_left_out_where_the_last_one_is_too_near() -> None:
    events: list[Event] = []
    clock = Clock()
    reported = ReportMarks(events.append, now=clock)
    reported.marks = Marks.of(100, step_s=4.0)
    nothing: Any = None
    reported.on_train_begin(nothing, state(0, 100), nothing)
    for step, seconds in ((10, APART_S), (20, APART_S - 1), (30, APART_S), (100, 1.0)):
        clock.now += seconds
        logs = {"epsilon": 0.5, "learning_rate": 1e-3, "epoch": 1.0}
        reported.on_log(nothing, state(step, 100), nothing, logs)
    told = [event.fields for event in events if event.action == "train.step"]
    assert [fields["step"] for fields in told] == [10, 30, 100]
    assert told[0] == {
        "step": 10,
        "total_steps": 100,
        "epsilon": 0.5,
        "learning_rate": 1e-3,
        "eta_s": 360.0,
    }


class Records:
    def __init__(self) -> None:
        self.put_on: list[int] = []

    def put(self, steps: int) -> None:
        self.put_on.append(steps)


@pytest.fixture
def affords() -> PrivacyPlan:
    """Return a plan of 103 steps."""
    return plan(steps=103)


def test_steps_are_paid_for_in_blocks_and_none_is_taken_that_was_not_planned(affords: PrivacyPlan) -> None:
    record = Records()
    budget = StepBudget(affords, charged=90, record=record)
    taken = 0
    while budget.take(ahead=5):
        taken += 1
    assert taken == 13
    assert record.put_on == [5, 10, 13]
    assert budget.steps == 103
    assert not budget.take(ahead=5)


def test_a_training_that_leaves_gives_back_what_it_will_not_take(affords: PrivacyPlan) -> None:
    record = Records()
    budget = StepBudget(affords, charged=0, record=record)
    for _ in range(7):
        budget.take(ahead=5)
    budget.leave()
    budget.leave()
    assert record.put_on == [5, 10, 7]
    assert budget.steps == 7


def test_every_step_takes_a_slot_and_a_longer_one_whole_ones() -> None:
    clock = Clock()
    slots = Slots(2.0, now=clock, sleep=clock.sleep)
    slots.wait()
    ends = []
    for seconds in (0.1, 1.9, 2.5, 0.0, 2.0):
        clock.now += seconds
        slots.wait()
        ends.append(clock.now)
    assert ends == [102.0, 104.0, 108.0, 110.0, 112.0]


def test_a_sleep_that_ends_early_is_taken_up_again_and_a_late_one_moves_no_later_slot() -> None:
    clock = Clock()

    def restless(seconds: float) -> None:
        clock.now += seconds / 2 if seconds > 0.5 else seconds + 0.25

    slots = Slots(2.0, now=clock, sleep=restless)
    slots.wait()
    ends = []
    for _ in range(3):
        clock.now += 0.5
        slots.wait()
        ends.append(clock.now)
    assert all(2.0 * at <= end - 100.0 < 2.0 * at + 0.5 for at, end in enumerate(ends, 1))


def test_what_follows_the_clock_waits_for_a_public_step(tmp_path: Any) -> None:
    control: Any = SimpleNamespace(should_save=False, should_training_stop=False)
    nothing: Any = None
    kept = Checkpoints(tmp_path, CheckpointPolicy(every_s=0.0), lambda _event: None)
    kept.may_follow_the_clock = {7}.__contains__
    limit = TimeLimit(0.0, may_end={5}.__contains__)
    saved, ended = [], []
    for step in range(1, 10):
        control.should_save = control.should_training_stop = False
        there = SimpleNamespace(global_step=step, max_steps=10, log_history=[])
        kept.on_step_end(nothing, there, control)  # type: ignore[arg-type]
        limit.on_step_end(nothing, there, control)  # type: ignore[arg-type]
        saved += [step] if control.should_save else []
        ended += [step] if control.should_training_stop else []
    assert (saved, ended) == ([7], [5])
