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
from nss_train.privacy.dpsgd.progress import APART_S, APART_STEPS, MOST_MARKS, Marks, ReportMarks
from nss_train.training.checkpoint import Checkpoints
from nss_train.training.reports.callbacks import TimeLimit

from .plans import plan

STEPS = st.integers(1, 20_000)
STEP_S = st.floats(0.001, 500)
NOTHING: Any = None


@given(steps=STEPS, step_s=STEP_S)
def test_marks_are_few_and_far_apart_and_the_last_step_is_one(steps: int, step_s: float) -> None:
    marks = Marks.of(steps, step_s=step_s)
    found = [0, *(step for step in range(1, steps + 1) if marks.at(step))]
    assert len(found) <= MOST_MARKS
    assert found[-1] == steps
    apart = [after - before for before, after in pairwise(found)]
    far = [one >= APART_STEPS and one * step_s >= APART_S * (1 - 1e-9) for one in apart]
    assert all(far) or found == [0, steps]


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


class Reported:
    """The reports of a training of a thousand steps that begins after some of them."""

    def __init__(self, *, begin: int = 0) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.marks = ReportMarks(self.events.append, now=self.clock)
        self.marks.on_train_begin(NOTHING, state(begin, 1000), NOTHING)
        self.marks.marks = Marks.of(1000, step_s=4.0)

    def log(self, step: int, *, after_s: float) -> None:
        self.clock.now += after_s
        logs = {"epsilon": 0.5, "learning_rate": 1e-3, "epoch": 1.0}
        self.marks.on_log(NOTHING, state(step, 1000), NOTHING, logs)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [dict(event.fields) for event in self.events if event.action == "train.step"]


def test_a_mark_says_what_is_public_and_is_left_out_where_the_last_one_is_too_near() -> None:
    reported = Reported()
    for step, seconds in ((100, APART_S), (200, APART_S - 1), (300, APART_S), (1000, 1.0)):
        reported.log(step, after_s=seconds)
    assert [fields["step"] for fields in reported.told] == [100, 300, 1000]
    assert reported.told[0] == {
        "step": 100,
        "total_steps": 1000,
        "epsilon": 0.5,
        "learning_rate": 1e-3,
        "eta_s": 3600.0,
    }


def test_an_attempt_that_begins_between_two_marks_tells_neither_where_nor_a_mark_that_is_near() -> None:
    reported = Reported(begin=237)
    assert [event.fields["step"] for event in reported.events] == [200]
    for step in (300, 400, 500):
        reported.log(step, after_s=APART_S)
    assert [fields["step"] for fields in reported.told] == [400, 500]


def test_a_training_ends_early_far_from_its_last_mark_alone() -> None:
    first, later, resumed = Reported(), Reported(), Reported(begin=150)
    later.log(100, after_s=1.0)  # a mark that is not told counts: ranks agree on steps, not on times
    ends = {
        name: [step for step in range(150, 301) if reported.marks.may_end(step)]
        for name, reported in {"first": first, "later": later, "resumed": resumed}.items()
    }
    assert ends == {"first": [150, 200, 250, 300], "later": [200, 250, 300], "resumed": [250, 300]}


def test_a_training_whose_steps_were_lost_has_its_last_mark_where_it_has_to_end() -> None:
    marks = Marks.of(1000, step_s=4.0).until(430)
    assert [step for step in range(1, 431) if marks.at(step)] == [100, 200, 300, 430]
    assert marks.paid_up_to(420) == 430
    assert Marks.of(1000, step_s=4.0).until(1200).steps == 1000


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
