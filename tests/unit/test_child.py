"""What the process of a stage leaves on its machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a stage, which its worker deletes whatever becomes of the process."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    policy = ModelPolicy(models_dir=str(tmp_path))
    request = Request(job_id="job-1", table="table.csv", config=parse_config({}), seed=1, policy=policy)
    (folder / "request.json").write_text(request.model_dump_json())
    return folder


def test_a_killed_preparation_leaves_no_copy_of_its_table_outside_its_folder(
    folder: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    command = [sys.executable, "-m", "nss_train.child", "prepare_data", str(folder), "--events-fd", "1"]
    options = ["--parent", str(os.getpid()), "--module", "tests.unit.killed_stages"]
    environment = os.environ | {"TMPDIR": str(shared)}
    subprocess.run([*command, *options], env=environment, stdout=subprocess.PIPE, check=False)
    assert list(folder.rglob("table.csv"))
    assert not list(shared.iterdir())
