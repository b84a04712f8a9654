"""A train stage in a process of its own, of twelve steps."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from nss_train.contract import CheckpointPolicy, Event, Request, Stage, StageResult
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.supervisor import Limits, run_child
from tests.unit.environment import stage_environment

from .conftest import make_request, read

EVERY_STEP = CheckpointPolicy(every_s=None, every_steps=1)


def wanted(model: Path, **update: Any) -> Request:
    request = make_request(
        model,
        learning_rate=0.01,
        num_input_records_to_sample=240,
        gradient_accumulation_steps=4,
        validation_ratio=0.1,
        validation_steps=3,
    )
    return request.model_copy(update=update)


def on_devices_for(ranks: int) -> dict[str, str]:
    """Return the environment of a group of ranks, which train on the CPU where devices are fewer."""
    return {"CUDA_VISIBLE_DEVICES": ""} if torch.cuda.device_count() < ranks else {}


class Run:
    """A train stage in a child process, with a record of its events."""

    def __init__(self, folder: Path, request: Request) -> None:
        self.folder = folder
        self.request = request
        self.events: list[Event] = []

    def start(
        self, on_event: Callable[[Event], None] | None = None, *, hosts: Hosts | None = None
    ) -> StageResult:
        (self.folder / "request.json").write_text(self.request.model_dump_json())

        def note(event: Event) -> None:
            self.events.append(event)
            if on_event is not None:
                on_event(event)

        return run_child(
            Stage.TRAIN,
            self.folder,
            on_event=note,
            on_tick=lambda: None,
            limits=Limits(tick_s=0.1),
            environment=stage_environment() | on_devices_for(self.request.ranks),
            hosts=hosts,
        )

    @property
    def adapter_file(self) -> Path:
        return self.folder / "out" / "adapter" / "adapter_model.safetensors"

    @property
    def adapter(self) -> str:
        return hashlib.sha256(self.adapter_file.read_bytes()).hexdigest()

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.history if "loss" in entry]

    @property
    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = read(self.folder / "out" / "log_history.json")
        return found


class MakeRun(Protocol):
    """A function that makes a run from prepared inputs; the rest updates its request."""

    def __call__(self, name: str, *, checkpoint: Path | None = None, **update: Any) -> Run: ...


def runs_of(model: Path, prepared: Path, root: Path) -> MakeRun:
    """Return a function that makes runs below ``root``, each with a copy of the inputs of a train stage."""

    def make(name: str, *, checkpoint: Path | None = None, **update: Any) -> Run:
        folder = root / name
        (folder / "out").mkdir(parents=True)
        shutil.copytree(prepared / "in", folder / "in", symlinks=True)
        if checkpoint is not None:
            shutil.copytree(checkpoint, folder / "in" / "checkpoint")
        return Run(folder, wanted(model, **update))

    return make
