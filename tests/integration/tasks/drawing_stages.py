"""The prepare_data of a private job that draws at random, without the accountant, which loads slowly."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

from nss_train.contract import (
    DRAW,
    KEPT_DRAW,
    PROPOSED_DRAW,
    SKETCH,
    Event,
    Report,
    Request,
    Stage,
    StageResult,
)

PLAN: dict[str, Any] = {
    "dataset": "birds",
    "unit": "record",
    "units": 10_000,
    "epsilon": 2.0,
    "delta": 1e-6,
    "by_products": [{"name": "schema", "epsilon": 0.1, "delta": 1e-7}],
    "clip": 1.0,
    "batch": 100,
    "sampling_rate": 0.01,
    "steps": 5,
    "noise_multiplier": 1.0,
}
SKETCH_OF_TABLE = "sketch-of-table.json"
DEADLINE_S = 60.0


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Draw once, use what is on record, and report it in the figures."""
    drawn = json.dumps({"noisy": secrets.token_hex(8)})
    (folder / PROPOSED_DRAW).write_text(drawn)
    if request.keep_draw and request.config.guarantee.schema_source != "raw":
        report(Event(action=DRAW, fields={"price": PLAN | {"steps": 0, "dataset": request.budget_name}}))
        drawn = read_when_there(folder / KEPT_DRAW)
    sketch = Path(request.policy.models_dir) / SKETCH_OF_TABLE
    if sketch.exists():
        (folder / SKETCH).write_bytes(sketch.read_bytes())
    figures = {"privacy": PLAN | {"dataset": request.budget_name}, "drawn": json.loads(drawn)["noisy"]}
    return StageResult(stage=Stage.PREPARE_DATA, figures=figures)


def read_when_there(file: Path) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the draw was not put on record")
        time.sleep(0.005)
    return file.read_text()
