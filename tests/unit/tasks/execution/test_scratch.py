"""Folders that are left behind, and what sweeps them up."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.execution.scratch import OWNER, scratch, sweep

HOST = platform.node()


def test_the_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch(tmp_path / "job.train.1") as folder:
            (folder / "out" / "half").write_text("written")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    with scratch(tmp_path / "job.train.1") as folder:
        assert sweep(tmp_path) == []
        assert folder.is_dir()


@pytest.mark.parametrize(
    "owner",
    [None, {"pid": 2**22 + 1, "started": 0.0, "host": HOST}, {"pid": 1, "started": 0.0, "host": HOST}],
)
def test_what_a_killed_worker_left_is_removed_with_its_processes(
    owner: dict[str, float | str] | None, tmp_path: Path
) -> None:
    folder = tmp_path / "job.train.1"
    (folder / "out").mkdir(parents=True)
    if owner is not None:
        (folder / OWNER).write_text(json.dumps(owner))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(folder)]) as orphan:
        assert sweep(tmp_path) == ["job.train.1"]
        assert orphan.wait(10) != 0
    assert not folder.exists()
    assert not psutil.pid_exists(orphan.pid)


def test_an_owner_whom_proc_hides_owns_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    with scratch(tmp_path / "job.train.1") as folder:
        monkeypatch.setattr(psutil, "Process", hidden)
        assert sweep(tmp_path) == []
        assert folder.is_dir()


def test_an_owner_that_is_dead_but_not_reaped_owns_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "job.train.1"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        process = psutil.Process(dead.pid)
        owner = {"pid": dead.pid, "started": process.create_time(), "host": HOST}
        (folder / OWNER).write_text(json.dumps(owner))
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert sweep(tmp_path) == ["job.train.1"]


def test_another_machine_s_folder_on_a_shared_disk_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "job.train.1"
    folder.mkdir()
    (folder / OWNER).write_text(json.dumps({"pid": 2**22 + 1, "started": 0.0, "host": "elsewhere"}))
    assert sweep(tmp_path) == []


def test_no_folder_is_no_work(tmp_path: Path) -> None:
    assert sweep(tmp_path / "missing") == []
