"""What `status` and `watch` tell of a stage."""

from __future__ import annotations

from typing import Any

import pytest

from nss_train.contract import Stage
from tasks.cli import display
from tasks.status import StageState, StageStatus

STARTED = {"step": 0, "total_steps": 20}
PLAIN = {"step": 3, "total_steps": 20, "loss": 2.5, "learning_rate": 1e-3, "tokens_per_s": 9.5, "eta_s": 17.2}
PRIVATE = {"step": 3, "total_steps": 20, "units_per_s": 4.5, "eta_s": 17.2, "epsilon": 1.23456}


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, ""),
        (STARTED, "step 0/20"),
        (PLAIN, "step 3/20  loss 2.5  9.5 tokens/s  17 s left"),
        (PRIVATE, "step 3/20  ε ≤ 1.235  4.5 units/s  17 s left"),
    ],
)
def test_a_training_is_told_at_every_moment(progress: dict[str, Any] | None, shown: str) -> None:
    train = StageStatus(stage=Stage.TRAIN, state=StageState.RUNNING, attempt=1, progress=progress)
    assert display.detail(train) == shown
