"""The run folder that NSS reads and writes, by attributes: ``workdir.train.adapter.metadata``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nss_train.artifacts.files import write_aside
from nss_train.errors import ParameterError, Problem

Layout = Mapping[str, Any]
"""Names of files (text) and of folders (a folder's name under ``""``, and its own entries)."""

RUN: Layout = {
    "config": "safe-synthesizer-config.json",
    "wandb_run_id_file": "wandb_run_id.txt",
    "private": {"": "private", "key": "key"},
    "train": {
        "": "train",
        "config": "safe-synthesizer-config.json",
        "cache": {"": "cache"},
        "adapter": {
            "": "adapter",
            "adapter_config": "adapter_config.json",
            "metadata": "metadata_v2.json",
            "schema": "dataset_schema.json",
        },
        "privacy": "privacy.json",
    },
    "generate": {
        "": "generate",
        "logs": "logs.jsonl",
        "output": "synthetic_data.csv",
        "report": "evaluation_report.html",
        "evaluation_metrics": "evaluation_metrics.json",
        "info": "info.json",
    },
    "dataset": {
        "": "dataset",
        "training": "training.csv",
        "test": "test.csv",
        "validation": "validation.csv",
        "transformed_training": "transformed_training.csv",
    },
}


class BoundDir(os.PathLike[str]):
    """A folder of the run; its attributes are the paths in it."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self._layout = layout

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._layout:
            raise AttributeError(
                f"{self.path} has no entry {name!r}; it has {', '.join(filter(None, self._layout))}"
            )
        return _entry(self.path, self._layout[name])

    def __fspath__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __eq__(self, other: object) -> bool:
        return self.path == (other.path if isinstance(other, BoundDir) else other)

    def __hash__(self) -> int:
        return hash(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"BoundDir({self.path})"


@dataclass(frozen=True, kw_only=True)
class Workdir:
    """The folder ``<base_path>/<config_name>---<dataset_name>/<run_name>``; run names default to the time."""

    base_path: Path | str
    config_name: str = "default"
    dataset_name: str = "data"
    run_name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_path", Path(self.base_path))
        if not self.run_name:
            object.__setattr__(self, "run_name", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in RUN:
            raise AttributeError(f"a run has no entry {name!r}; it has {', '.join(RUN)}")
        return _entry(self.run_dir, RUN[name])

    @property
    def run_dir(self) -> Path:
        return Path(self.base_path) / f"{self.config_name}---{self.dataset_name}" / self.run_name

    @property
    def adapter_path(self) -> Path:
        return self.run_dir / "train" / "adapter"

    def holdout_key(self) -> bytes:
        """Return the key that splits a private run's units; it is drawn once and read from then on.

        Raises :class:`ParameterError` for an existing private run without its key: another key would hold out
        other units, and those held out so far would be trained on.
        """
        path = Path(self.private.key)
        if path.is_file():
            return path.read_bytes()
        if Path(self.train.privacy).exists():
            remedy = "its key is missing, so that the holdout cannot be repeated; train anew"
            problem = Problem(field="run folder", value=str(self.run_dir), remedy=remedy)
            raise ParameterError("The private run cannot be gone on with.", [problem])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        key = secrets.token_bytes(32)
        write_aside(path, key, mode=0o600)
        return key

    def ensure_directories(self) -> Workdir:
        """Make the folders that training writes into, and return this object."""
        for folder in (self.train.cache, self.train.adapter, self.dataset):
            Path(folder).mkdir(parents=True, exist_ok=True)
        return self


def _entry(folder: Path, layout: str | Layout) -> Path | BoundDir:
    if isinstance(layout, str):
        return folder / layout
    return BoundDir(folder / layout[""], layout)
