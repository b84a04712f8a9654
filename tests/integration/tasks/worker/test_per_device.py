"""One worker for each device of a machine: started, kept up and ended together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nss_train.errors import ParameterError
from tasks.devices import of_this_machine, user_of
from tasks.settings import Settings, worker_environment
from tasks.worker import per_device
from tasks.worker.per_device import Crew, DeviceWorker, run_workers
from tests import nvidia_smi

TWO = "".join(line for line in nvidia_smi.LISTING.splitlines(keepends=True) if "GPU" in line[:3])
WAIT_S = 60.0


def until(true: Callable[[], Any]) -> None:
    """Return when something is true; fail after a minute."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def machine(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a machine with two GPUs, the first and the last of the listing."""
    nvidia_smi.install(tmp_path, monkeypatch, TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    return settings


@contextmanager
def per_gpu(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tasks.cli", "worker", "--per-gpu", "--name=cuda@a"]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=worker_environment(settings), stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def users(settings: Settings) -> dict[str, int]:
    """Return the worker and the process of each device in use."""
    found = (user_of(device, settings) for device in of_this_machine())
    return {user.worker: user.pid for user in found if user is not None}


def beating(settings: Settings) -> set[str]:
    folder = settings.heartbeats_dir
    return {file.name for file in folder.iterdir()} if folder.is_dir() else set()


def test_each_device_has_a_worker_that_is_restarted_and_ends_with_the_others(
    machine: Settings, tmp_path: Path
) -> None:
    names = {"cuda-0@a", "cuda-2@a"}
    log = tmp_path / "log"
    with per_gpu(machine, log) as parent:
        until(lambda: beating(machine) == names)
        before = users(machine)
        assert set(before) == names
        with pytest.raises(ParameterError) as refused:
            run_workers(machine, name="cuda@b", options=["--queues=cuda"])
        assert [
            str(pid) in one.remedy for pid, one in zip(before.values(), refused.value.problems, strict=True)
        ]
        os.kill(before["cuda-0@a"], signal.SIGKILL)
        until(lambda: users(machine).get("cuda-0@a", before["cuda-0@a"]) != before["cuda-0@a"])
        assert users(machine)["cuda-2@a"] == before["cuda-2@a"]
        assert "worker cuda-0@a ended by SIGKILL: it starts again in 1 s (1 of 5)" in log.read_text()
        (machine.heartbeats_dir / "cuda-0@a").unlink()
        until(lambda: beating(machine) == names)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(WAIT_S) == 0
    assert users(machine) == {}
    assert beating(machine) == set()


@pytest.mark.long
def test_no_worker_outlives_the_process_that_started_it(machine: Settings, tmp_path: Path) -> None:
    with per_gpu(machine, tmp_path / "log") as parent:
        until(lambda: len(users(machine)) == 2)
        workers = [psutil.Process(pid) for pid in users(machine).values()]
        parent.kill()
        gone, alive = psutil.wait_procs(workers, timeout=WAIT_S)
    assert (len(gone), alive) == (2, [])
    until(lambda: users(machine) == {})


def test_a_machine_without_a_device_is_told_what_to_do(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi.install(tmp_path, monkeypatch, "")
    with pytest.raises(ParameterError, match="leave --per-gpu out to train on the CPU"):
        run_workers(settings, name="cuda@a", options=[])


def shell(script: str) -> DeviceWorker:
    return DeviceWorker(name="cuda-0@a", command=("/bin/sh", "-c", script), environment=dict(os.environ))


def kept(*scripts: str) -> list[int]:
    """Keep shells up instead of workers; return their exit codes."""

    async def together() -> list[int]:
        crew = Crew()
        return await asyncio.gather(*(crew.keep(shell(script)) for script in scripts))

    return asyncio.run(together())


def test_a_worker_that_keeps_dying_is_given_up_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(per_device, "PAUSE_S", 0.001)
    other = f"while [ $(wc -l <{tmp_path}/lives) -lt 6 ]; do sleep 0.05; done"
    (tmp_path / "lives").touch()
    assert kept(f"echo >>{tmp_path}/lives; kill -9 $$", other) == [3, 0]
    assert (tmp_path / "lives").read_text() == "\n" * (1 + per_device.RESTARTS)
    assert "worker cuda-0@a is given up: it ended by SIGKILL" in caplog.text


@pytest.mark.parametrize("code", [0, 2, 75])
def test_a_worker_that_has_left_or_was_refused_is_not_started_again(code: int, tmp_path: Path) -> None:
    assert kept(f"echo >>{tmp_path}/lives; exit {code}") == [code]
    assert (tmp_path / "lives").read_text() == "\n"


def test_a_signal_ends_also_a_worker_that_waits_for_its_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(per_device, "PAUSE_S", 600.0)

    class Watched(Crew):
        async def _pause(self, *of: Any) -> None:
            self.pass_on(signal.SIGTERM)
            await super()._pause(*of)

    async def told() -> int:
        keeping = Watched().keep(shell(f"echo >>{tmp_path}/lives; exit 1"))
        return await asyncio.wait_for(keeping, WAIT_S)

    assert asyncio.run(told()) == 0
    assert (tmp_path / "lives").read_text() == "\n"
