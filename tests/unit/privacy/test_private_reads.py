"""A private step waits for its device once, to tell its noisy loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nss_train.training import arguments, stage
from tests.unit.training.reads import PerStep, counted

from .conftest import PrivateRun


@pytest.mark.parametrize("told", [True, False])
def test_a_private_step_reads_its_loss_if_it_is_told_and_nothing_else(
    private_run: Callable[..., PrivateRun], monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    # As on a device: the usual optimizer of a CPU counts its steps there, and reads them.
    monkeypatch.setattr(arguments, "_optimizer", lambda **_: "adamw_torch_fused")
    run, fit, found = private_run(), stage.fit, []

    def counting(trainer: Any, options: Any) -> Any:
        with counted() as reads:
            steps = PerStep(reads)
            trainer.add_callback(steps)
            fitted = fit(trainer, options)
        found.append(steps.each())
        return fitted

    monkeypatch.setattr(stage, "fit", counting)
    run.replan(report_loss=told, steps=4)
    run.start()
    assert found == [[int(told)] * 3]
