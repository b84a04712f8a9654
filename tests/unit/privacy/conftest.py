"""A private training of a small table, prepared once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nss_train import stages
from nss_train.contract import Event, Request, StageResult
from nss_train.privacy.accounting.plan import PrivacyPlan
from tests.unit.training.conftest import load, make_request

MOST_SLACK = 1e-4 if torch.cuda.is_available() else 0.0
"""A CPU computes each unit's gradient exactly as it does alone; a device's kernels round by their shape."""
SECTIONS = {
    "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5},
    "guarantee": {"schema_source": "declared"},
}


def private_request(model: Path, *, guarantee: dict[str, Any] | None = None, **training: Any) -> Request:
    """Return a request for 120 units, of which a step expects six, and ten steps of them."""
    sections = {**SECTIONS, "guarantee": SECTIONS["guarantee"] | (guarantee or {})}
    options = {
        "gradient_accumulation_steps": 6,
        "learning_rate": 0.01,
        "num_input_records_to_sample": 60,
        "warmup_steps": 0.0,
    }
    return make_request(model, sections=sections, **(options | training))


@pytest.fixture(scope="session")
def prepared_private(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Make the inputs of a private train stage."""
    return load(tmp_path_factory.mktemp("private"), private_request(tiny_model))


class PrivateRun:
    """A private train stage in this process."""

    def __init__(self, folder: Path, request: Request) -> None:
        self.folder = folder
        self.request = request
        self.events: list[Event] = []

    @property
    def plan(self) -> PrivacyPlan:
        return PrivacyPlan.model_validate_json(self._plan_file.read_bytes())

    def replan(self, **update: Any) -> None:
        """Change the plan in a way that no job could."""
        self._plan_file.write_text(self.plan.model_copy(update=update).model_dump_json())

    def start(self) -> StageResult:
        return stages.train(self.folder, self.request, report=self.events.append)

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [event.fields for event in self.events if event.action == "train.step"]

    @property
    def _plan_file(self) -> Path:
        return self.folder / "in" / "prepare_data" / "privacy.json"


@pytest.fixture
def private_run(prepared_private: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., PrivateRun]:
    def make(name: str = "run", *, checkpoint: Path | None = None, **update: Any) -> PrivateRun:
        folder = tmp_path / name
        (folder / "out").mkdir(parents=True)
        shutil.copytree(prepared_private / "in", folder / "in", symlinks=True)
        if checkpoint is not None:
            shutil.copytree(checkpoint, folder / "in" / "checkpoint")
        return PrivateRun(folder, private_request(tiny_model).model_copy(update=update))

    return make
