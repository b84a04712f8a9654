"""A private preparation of a small table, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nss_train.config import parse_config
from nss_train.contract import (
    DRAW,
    KEPT_DRAW,
    PROPOSED_DRAW,
    Event,
    ModelPolicy,
    Request,
    StageResult,
)
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.stages import preparation

ROWS = 400


CONTEXT = 2048


VOCABULARY = 49_152


KEY = bytes(range(32))


def visits() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "patient": np.sort(rng.integers(0, 200, ROWS)),
            "ward": rng.choice(["east", "west"], ROWS),
            "days": rng.integers(1, 30, ROWS),
        }
    )


def request(models: Path, **sections: Any) -> Request:
    training = {"pretrained_model": "SmolLM2-small", "num_input_records_to_sample": 1000}
    given = {
        "privacy": {"dp_enabled": True, "epsilon": 8.0},
        "data": {"holdout": 0},
        **sections,
        "training": training | sections.get("training", {}),
    }
    return Request(
        job_id="job-0000001",
        table="visits.csv",
        config=parse_config(given),
        seed=3,
        policy=ModelPolicy(models_dir=str(models)),
    )


def stage_folder(folder: Path) -> Path:
    for name in ("in", "out"):
        (folder / name).mkdir()
    visits().to_csv(folder / "in" / "visits.csv", index=False)
    return folder


def ignore(_event: Event) -> None:
    """Ignore the event."""


def run(folder: Path, asked: Request) -> StageResult:
    return preparation.run(folder, asked, report=ignore)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / "out" / f"{name}.json").read_text())


def arrow(folder: Path, name: str) -> pa.Table:
    with pa.ipc.open_stream(folder / "out" / f"{name}.arrow") as stream:
        return stream.read_all()


class Supervisor:
    """A supervisor that puts the first draw of a job on record, and answers with it from then on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: bytes | None = None
        self.prices: list[PrivacyPlan] = []

    def __call__(self, event: Event) -> None:
        if event.action == DRAW:
            self.prices.append(PrivacyPlan.model_validate(event.fields["price"]))
            self.kept = self.kept or (self.folder / PROPOSED_DRAW).read_bytes()
            (self.folder / KEPT_DRAW).write_bytes(self.kept)


NOISY = {
    "guarantee": {"unit_column": "patient"},
    "data": {"holdout": 0.1},
    "preflight": {"disabled_checks": ["dataset.size"]},
}


SMALL = {"preflight": {"disabled_checks": ["dataset.size"]}}


def prepared_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}
