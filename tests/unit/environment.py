"""The environment of a stage in a test."""

from __future__ import annotations

import os
from pathlib import Path

from nss_train.contract import Request, Stage
from tasks.execution.processes.supervisor import Limits, run_child
from tasks.settings import child_environment


def stage_environment() -> dict[str, str]:
    """Return the environment without what pytest changes between two tests.

    A warm host serves one environment, and is started again for another.
    """
    return {name: value for name, value in child_environment().items() if name != "PYTEST_CURRENT_TEST"}


def run_without_devices(stage: Stage, folder: Path, request: Request, *, module: str) -> None:
    """Run a stage whose ranks cannot share a CUDA device."""
    (folder / "request.json").write_text(request.model_dump_json())
    run_child(
        stage,
        folder,
        on_event=lambda _event: None,
        on_tick=lambda: None,
        limits=Limits(tick_s=0.1),
        environment=dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ""},
        module=module,
    )
