"""A training goes to the smallest device that has the memory for it."""

from __future__ import annotations

import logging

import pytest

from nss_train.contract import Stage
from tasks.broker.task_names import TASK_NAMES
from tasks.scheduling.routing import GIB, PRIORITIES, choose
from tasks.settings import Settings

SETTINGS = Settings(cuda_queues={"large": 80, "small": 16, "middle": 40})


@pytest.mark.parametrize(
    ("needed_gib", "queue"),
    [(0.5, "small"), (16, "small"), (16.1, "middle"), (79, "large"), (500, "large"), (None, "large")],
)
def test_the_smallest_queue_with_enough_memory_is_chosen(needed_gib: float | None, queue: str) -> None:
    needed = None if needed_gib is None else int(needed_gib * GIB)
    assert choose(SETTINGS, "job-0001", needed) == queue


def test_a_training_that_may_fit_nowhere_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        choose(SETTINGS, "job-0001", 500 * GIB)
        choose(SETTINGS, "job-0001", 1 * GIB)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "the training may need 500.0 GiB" in caplog.text


def test_a_single_queue_takes_every_training() -> None:
    assert choose(Settings(queue_cuda="gpu"), "job-0001", None) == "gpu"


def test_jobs_that_have_begun_come_before_new_ones() -> None:
    order = [PRIORITIES[TASK_NAMES[stage]] for stage in (Stage.TRAIN, Stage.LOAD_MODEL, Stage.PREPARE_DATA)]
    assert order == sorted(set(order))
    assert PRIORITIES[TASK_NAMES[Stage.SAVE_MODEL]] == PRIORITIES[TASK_NAMES[Stage.TRAIN]]
