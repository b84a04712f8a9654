"""What readers of results see distinguishes no step from another; each mark, payment or state kept would."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import CHARGE, CHECKPOINT_SAVED, TRAIN_STEP, Event
from nss_train.privacy.accounting.step_budget import StepBudget, SupervisedRecorder
from nss_train.privacy.audit.told_steps import PUBLISHED, Told, Watcher, told
from nss_train.privacy.dpsgd import progress
from nss_train.privacy.dpsgd.clock import Pace, Slots, Unpaced
from nss_train.privacy.dpsgd.poisson_sampling import PoissonSampler
from nss_train.privacy.dpsgd.progress import Marks, ReportMarks
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from tasks.jobs.keys import Keys

from .plans import plan

pytestmark = pytest.mark.heavy

STEPS, UNITS, RATE = 1000, 200, 0.1
TARGET = 7
UNIT_S, TARGET_S = 2.0, 20.0
"""Seconds of a unit, and of one with the longest record of all: a step takes longer than marks are apart."""
TRAININGS = {19: 20, 39: 20, 59: 20, 200: 200, 1000: 100}
"""Number of seeded trainings, by the number of their steps."""
KEYS = Keys("job-0001")


def visible() -> tuple[str, ...]:
    """Return the events whose times are seen outside the private part of a job in the store."""
    kept = {CHARGE: KEYS.charge(1), CHECKPOINT_SAVED: KEYS.private_checkpoints}
    public = (action for action, key in kept.items() if not key.startswith(KEYS.private))
    return (*PUBLISHED, *public)


@dataclass
class Clock:
    """A clock whose time passes when a step says so."""

    s: float = 0.0

    def now(self) -> float:
        return self.s

    def sleep(self, seconds: float) -> None:
        self.s += seconds


class Seeded(SecretRandomness):
    """Draws that are the same in each run of the test."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)


def train(
    folder: Path,
    steps: int = STEPS,
    *,
    seed: int = 0,
    slot_s: float | None = None,
    sees: Collection[str] = PUBLISHED,
) -> Told:
    """Take steps with the parts that decide what is visible of a training, and no model."""
    clock, drawn = Clock(), []
    watcher = Watcher(folder=folder, now=clock.now, sees=sees)
    pace: Pace = Unpaced() if slot_s is None else Slots(slot_s, now=clock.now, sleep=clock.sleep)
    marks = Marks.of(steps, step_s=UNITS * RATE * UNIT_S)
    reporter = ReportMarks(watcher.take, now=clock.now)
    reporter.marks = marks
    claim = plan(units=UNITS, batch=20, sampling_rate=RATE, steps=steps, noise_multiplier=2.0)
    budget = StepBudget(claim, charged=0, record=SupervisedRecorder(folder, watcher.take))
    sampler = PoissonSampler(units=UNITS, rate=RATE, randomness=Seeded(seed))
    arguments, control = TrainingArguments(output_dir=str(folder)), TrainerControl()
    state = TrainerState(max_steps=steps)
    reporter.on_train_begin(arguments, state, control)
    pace.wait()
    for done in range(1, steps + 1):
        assert budget.take(ahead=marks.paid_up_to(done - 1) - done + 1)
        units = sampler.draw()
        clock.sleep(UNIT_S * len(units) + (TARGET_S if TARGET in units else 0))
        drawn.append((len(units), TARGET in units))
        pace.wait()
        state.global_step = done
        if marks.at(done):
            reporter.on_log(arguments, state, control, logs={"epsilon": 1.0})
        # An operator may have the state kept after each step.
        watcher.take(Event(action=CHECKPOINT_SAVED, fields={"step": done}))
    numbers, has_target = zip(*drawn, strict=True)
    return told(watcher, numbers, has_target)


def average_area(folder: Path, steps: int, sees: Collection[str]) -> tuple[float, float]:
    """Return the average AUC of the longest record's steps over seeded trainings, and its standard error."""
    found = [train(folder, steps, seed=seed, sees=sees) for seed in range(TRAININGS[steps])]
    areas = [one.area for one in found if 0 < one.with_target < steps]
    return float(np.mean(areas)), float(np.std(areas) / np.sqrt(len(areas)))


@pytest.mark.parametrize("steps", TRAININGS)
def test_what_readers_of_results_see_tells_no_step_that_drew_the_longest_record(
    steps: int, tmp_path: Path
) -> None:
    area, error = average_area(tmp_path, steps, visible())
    assert area - 2 * error <= 0.55
    assert error < 0.005


@pytest.mark.parametrize("steps", [19, 39, 59])
@pytest.mark.parametrize("action", [CHARGE, CHECKPOINT_SAVED])
def test_who_may_read_what_is_private_tells_the_steps_of_a_short_training(
    action: str, steps: int, tmp_path: Path
) -> None:
    area, _ = average_area(tmp_path, steps, (*PUBLISHED, action))
    assert area > 0.85


def test_a_mark_of_each_step_tells_its_drawn_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "APART_STEPS", 1)
    found = train(tmp_path, 19)
    assert found.tellings > 16
    assert found.correlation > 0.6
    area, _ = average_area(tmp_path, 19, PUBLISHED)
    assert area > 0.85


def test_a_paced_training_tells_nothing_at_all(tmp_path: Path) -> None:
    everything = (*PUBLISHED, CHARGE, CHECKPOINT_SAVED)
    found = train(tmp_path, slot_s=200.0, sees=everything)
    assert found.tellings == STEPS + 1
    assert (found.correlation, found.area) == (0, 0.5)


def test_durations_between_tellings_are_shared_evenly(tmp_path: Path) -> None:
    clock = iter([0.0, 4.0, 10.0])
    watcher = Watcher(folder=tmp_path, now=lambda: next(clock))
    watcher.take(Event(action="train.started", fields={"step": 0}))
    watcher.take(Event(action=TRAIN_STEP, fields={"step": 2}))
    watcher.take(Event(action=TRAIN_STEP, fields={"step": 4}))
    assert watcher.durations(4).tolist() == [2.0, 2.0, 3.0, 3.0]


def test_a_charge_says_that_what_was_paid_for_before_is_done(tmp_path: Path) -> None:
    clock = iter([0.0, 6.0, 7.0])
    watcher = Watcher(folder=tmp_path, now=lambda: next(clock), sees=(TRAIN_STEP, CHARGE))
    watcher.take(Event(action=CHARGE, fields={"steps": 3}))
    assert (tmp_path / "charged").read_text() == "3"
    watcher.take(Event(action=CHARGE, fields={"steps": 4}))
    watcher.take(Event(action=TRAIN_STEP, fields={"step": 4}))
    assert watcher.durations(4).tolist() == [2.0, 2.0, 2.0, 1.0]
