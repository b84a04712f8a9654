"""Stages up to load_model, run for real on a table of 120 rows and a random model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nss_train import stages
from nss_train.config import parse_config
from nss_train.contract import Event, ModelPolicy, Request, StageResult
from nss_train.training.options import RunOptions

TABLE = "name,size\n" + "".join(f"bird {i % 7},{20 + i}\n" for i in range(120))


def run_options(output: Path, **changes: Any) -> RunOptions:
    """Return the options of a run that reports nothing."""
    return RunOptions(output=output, seed=1, checkpointing=False, report=silent, **changes)


def silent(event: Event) -> None:
    """Ignore the event."""


def make_request(
    model: Path, *, seed: int = 1, sections: Mapping[str, Any] | None = None, **training: Any
) -> Request:
    """Return a request for a short training; ``sections`` are added to its config."""
    options = {
        "pretrained_model": str(model),
        "num_input_records_to_sample": 60,
        "gradient_accumulation_steps": 2,
        "lora_r": 4,
    }
    config = parse_config(
        {
            "data": {"holdout": 0, "random_state": 1},
            "training": options | training,
            "preflight": {"disabled_checks": ["dataset.size"]},
            **(sections or {}),
        }
    )
    policy = ModelPolicy(models_dir=str(model.parent))
    return Request(job_id="job-0000001", table="table.csv", config=config, seed=seed, policy=policy)


def prepare(root: Path, request: Request) -> Path:
    """Make the folder of a load_model stage with its inputs."""
    source = root / "prepare_data"
    for part in ("in", "out"):
        (source / part).mkdir(parents=True)
    (source / "in" / "table.csv").write_text(TABLE)
    stages.prepare_data(source, request, report=silent)
    return follow(root / "load_model", source)


def follow(folder: Path, before: Path) -> Path:
    """Make the folder of a stage that reads what prepare_data made."""
    (folder / "out").mkdir(parents=True)
    shutil.copytree(before / "out", folder / "in" / "prepare_data")
    return folder


def load(root: Path, request: Request) -> Path:
    """Make the folder of a train stage with its inputs."""
    folder = prepare(root, request)
    stages.load_model(folder, request, report=silent)
    train = follow(root / "train", root / "prepare_data")
    (train / "in" / "model").symlink_to(folder / "out" / "model")
    return train


Trained = Callable[..., tuple[Path, StageResult, list[Event]]]


@pytest.fixture
def train(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    """Return a function that runs the stages up to train; it returns their folder, result and events."""

    def run(**options: Any) -> tuple[Path, StageResult, list[Event]]:
        request = make_request(tiny_model, **options)
        folder = load(tmp_path_factory.mktemp("run"), request)
        events: list[Event] = []
        result = stages.train(folder, request, report=events.append)
        return folder, result, events

    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text())
