"""The stages of a private job without a model: each step is paid for before it is taken.

They need no accountant either, which takes seconds to load: the plan is plain JSON.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from nss_train.contract import (
    CHARGE,
    CHARGED,
    DRAW,
    KEPT_DRAW,
    PROPOSED_DRAW,
    Event,
    Report,
    Request,
    Stage,
    StageResult,
)
from tests.integration.tasks.drawing_stages import PLAN

STEPS = PLAN["steps"]
LOST = 3
RESULT = "training_result.json"
DIGEST = "0" * 64
DEADLINE_S = 60.0


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    if request.keep_draw:
        (folder / PROPOSED_DRAW).write_text("{}")
        report(Event(action=DRAW, fields={"price": PLAN | {"steps": 0}}))
        wait_until((folder / KEPT_DRAW).exists, "the draw")
    (folder / "out" / "config.json").write_text(request.config.model_dump_json())
    figures = {"privacy": PLAN} if request.config.dp_enabled else {}
    return StageResult(stage=Stage.PREPARE_DATA, figures=figures)


def load_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    model = folder / "out" / "model"
    model.mkdir()
    (model / "manifest.json").write_text('{"files": {}}')
    return StageResult(stage=Stage.LOAD_MODEL, model_digest=DIGEST)


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Do what ``dataset_name`` says; ``charged_steps`` are those that other attempts were charged."""
    before = request.charged_steps or 0
    for step in range(1, STEPS + 1 if request.config.dp_enabled else 1):
        report(Event(action=CHARGE, fields={"steps": step}))
        wait_for(folder / CHARGED, step)
        report(Event(action="train.step", message=f"step {step}", fields={"step": step}))
        if request.dataset_name == "killed" and before == 0 and step == LOST:
            os.kill(os.getpid(), signal.SIGKILL)
        if request.dataset_name == "waits" and step == LOST:
            time.sleep(600)
    (folder / "out" / RESULT).write_text(json.dumps({"charged_steps": request.charged_steps}))
    return StageResult(stage=Stage.TRAIN)


def save_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    (folder / "out" / "manifest.json").write_text("{}")
    return StageResult(stage=Stage.SAVE_MODEL)


def wait_for(file: Path, steps: int) -> None:
    """Wait until a file holds at least this many steps."""
    wait_until(lambda: file.exists() and int(file.read_text()) >= steps, f"step {steps}")


def wait_until(is_there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not put on record")
        time.sleep(0.005)
