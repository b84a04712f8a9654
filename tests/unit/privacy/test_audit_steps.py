"""Events distinguish no step from another; a mark of each step, or a charge for each, would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import CHARGE, TRAIN_STEP, Event
from nss_train.privacy.accounting.step_budget import StepBudget, SupervisedRecorder
from nss_train.privacy.audit.told_steps import Told, Watcher, told
from nss_train.privacy.dpsgd import progress
from nss_train.privacy.dpsgd.clock import Pace, Slots, Unpaced
from nss_train.privacy.dpsgd.poisson_sampling import PoissonSampler
from nss_train.privacy.dpsgd.progress import Marks, ReportMarks
from nss_train.privacy.dpsgd.randomness import SecretRandomness

from .plans import plan

pytestmark = pytest.mark.heavy

STEPS, UNITS, RATE = 1000, 200, 0.1
TARGET = 7
UNIT_S, TARGET_S = 0.1, 1.0
"""Seconds of a unit, and of one with the longest record of all."""
EVERY = 10**9
"""Number of marks, or blocks, larger than the number of steps."""


@dataclass
class Clock:
    """A clock whose time passes when a step says so."""

    s: float = 0.0

    def now(self) -> float:
        return self.s

    def sleep(self, seconds: float) -> None:
        self.s += seconds


def train(folder: Path, *, slot_s: float | None = None) -> Told:
    """Take steps with the parts that decide what is visible of a training, and no model."""
    clock, drawn = Clock(), []
    watcher = Watcher(folder=folder, now=clock.now)
    pace: Pace = Unpaced() if slot_s is None else Slots(slot_s, now=clock.now, sleep=clock.sleep)
    marks = Marks.of(STEPS, step_s=UNITS * RATE * UNIT_S)
    reporter = ReportMarks(watcher.take, now=clock.now)
    reporter.marks = marks
    claim = plan(units=UNITS, batch=20, sampling_rate=RATE, steps=STEPS, noise_multiplier=2.0)
    affordable = claim.model_copy(update={"epsilon": claim.spent(STEPS)})
    budget = StepBudget(affordable, charged=0, record=SupervisedRecorder(folder, watcher.take))
    sampler = PoissonSampler(units=UNITS, rate=RATE, randomness=SecretRandomness())
    arguments, control = TrainingArguments(output_dir=str(folder)), TrainerControl()
    state = TrainerState(max_steps=STEPS)
    reporter.on_train_begin(arguments, state, control)
    pace.wait()
    for done in range(STEPS):
        assert budget.take(ahead=marks.paid_up_to(done) - done)
        units = sampler.draw()
        clock.sleep(UNIT_S * len(units) + (TARGET_S if TARGET in units else 0))
        drawn.append((len(units), TARGET in units))
        pace.wait()
        state.global_step = done + 1
        if marks.at(done + 1):
            reporter.on_log(arguments, state, control, logs={"epsilon": 1.0})
    numbers, has_target = zip(*drawn, strict=True)
    return told(watcher, numbers, has_target)


def test_marks_and_blocks_tell_no_step_from_another(tmp_path: Path) -> None:
    found = train(tmp_path)
    assert found.tellings <= progress.MOST_MARKS + progress.BLOCKS
    assert abs(found.correlation) < 0.2


def test_a_paced_training_tells_nothing_at_all(tmp_path: Path) -> None:
    found = train(tmp_path, slot_s=10.0)
    assert found.correlation == 0
    assert 0.45 <= found.area <= 0.55


@pytest.mark.parametrize("fault", [("MOST_MARKS", "BLOCKS"), ("BLOCKS",)])
def test_a_mark_or_a_charge_of_each_step_tells_its_drawn_number(
    fault: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in fault:
        monkeypatch.setattr(progress, name, EVERY)
    monkeypatch.setattr(progress, "APART_S", 0.0)
    found = train(tmp_path)
    assert found.tellings > STEPS / 2
    assert found.correlation > 0.6
    assert found.area > 0.9


def test_durations_between_tellings_are_shared_evenly(tmp_path: Path) -> None:
    clock = iter([0.0, 4.0, 10.0])
    watcher = Watcher(folder=tmp_path, now=lambda: next(clock))
    watcher.take(Event(action="train.started", fields={"step": 0}))
    watcher.take(Event(action=TRAIN_STEP, fields={"step": 2}))
    watcher.take(Event(action=TRAIN_STEP, fields={"step": 4}))
    assert watcher.durations(4).tolist() == [2.0, 2.0, 3.0, 3.0]


def test_a_charge_says_that_what_was_paid_for_before_is_done(tmp_path: Path) -> None:
    clock = iter([0.0, 6.0, 7.0])
    watcher = Watcher(folder=tmp_path, now=lambda: next(clock))
    watcher.take(Event(action=CHARGE, fields={"steps": 3}))
    assert (tmp_path / "charged").read_text() == "3"
    watcher.take(Event(action=CHARGE, fields={"steps": 4}))
    watcher.take(Event(action=TRAIN_STEP, fields={"step": 4}))
    assert watcher.durations(4).tolist() == [2.0, 2.0, 2.0, 1.0]
