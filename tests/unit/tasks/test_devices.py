"""Two workers never meet on a device by chance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nss_train.errors import ParameterError
from tasks import devices as devices_module
from tasks.devices import Device, claimed, of_this_machine, user_of, visible
from tasks.monitoring.doctor import examine
from tasks.settings import Settings, child_environment
from tests import nvidia_smi
from tests.nvidia_smi import DIVIDED, INSTANCES, OTHER, WHOLE

HOLD = """
import os, sys
from pathlib import Path
from tasks.devices import Device, claimed
from tasks.settings import Settings
with claimed([Device(uuid=sys.argv[2], index="0", name="")], Settings(home=Path(sys.argv[1])), worker="a@b"):
    child = os.fork()
    if child == 0:
        os.read(int(sys.argv[3]), 1)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.read()
"""
"""A worker that holds a device, with a process of its pool that ends when its pipe does."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a worker on a machine with three GPUs, one of them divided."""
    nvidia_smi.install(tmp_path, monkeypatch)
    return Settings(home=tmp_path / "home")


def seen(settings: Settings) -> list[str]:
    return [device.uuid for device in visible(settings)]


def test_whole_gpus_and_instances_are_listed_and_a_divided_gpu_is_not(here: Settings) -> None:
    found = of_this_machine()
    assert [(device.index, device.uuid) for device in found] == [
        ("0", WHOLE),
        ("1-0", INSTANCES[0]),
        ("1-1", INSTANCES[1]),
        ("2", OTHER),
    ]
    assert [device.name for device in found[1:3]] == ["3g.20gb", "1c.3g.20gb"]
    assert seen(here) == [device.uuid for device in found]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("2,0", [OTHER, WHOLE]),
        (OTHER, [OTHER]),
        ("GPU-77", [OTHER]),
        ("1", list(INSTANCES)),
        (INSTANCES[1], [INSTANCES[1]]),
        ("0,-1,2", [WHOLE]),
        ("NoDevFiles", []),
        ("", []),
    ],
)
def test_the_environment_names_devices_as_cuda_takes_them(
    named: str, expected: list[str], here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert seen(here) == expected


def test_the_setting_goes_before_the_environment(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert seen(here.model_copy(update={"devices": ("2",)})) == [OTHER]


def test_every_name_without_a_device_is_refused_at_once(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two UUIDs begin so, a divided GPU is none, and there are three GPUs.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"MIG-c7,{DIVIDED},7,0")
    with pytest.raises(ParameterError) as refused:
        visible(here)
    assert [(one.field, one.value) for one in refused.value.problems] == [
        ("CUDA_VISIBLE_DEVICES", name) for name in ("MIG-c7", DIVIDED, "7")
    ]
    assert OTHER in refused.value.problems[0].remedy


def test_without_nvidia_smi_only_a_uuid_names_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"0,{OTHER}")
    settings = Settings(home=tmp_path)
    assert of_this_machine() == []
    assert seen(settings) == [OTHER]
    assert "without nvidia-smi" in caplog.text


def test_a_driver_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvidia_smi.install(tmp_path, monkeypatch)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert of_this_machine() == []
    assert "nvidia-smi does not answer" in caplog.text


def test_stages_see_the_devices_that_their_worker_has_claimed(here: Settings) -> None:
    chosen = [device for device in visible(here) if not device.is_instance]
    with claimed(chosen, here, worker="cuda@a") as mine:
        assert child_environment(mine)["CUDA_VISIBLE_DEVICES"] == f"{WHOLE},{OTHER}"


def test_a_worker_without_devices_keeps_what_it_was_told(here: Settings) -> None:
    told = here.model_copy(update={"devices": ("3",)})
    with claimed([], told, worker="cuda@a") as mine:
        assert mine == told


def test_several_instances_are_refused_because_a_process_sees_one(here: Settings) -> None:
    with (
        pytest.raises(ParameterError, match="a process uses one MIG instance: .* --per-gpu"),
        claimed(visible(here), here, worker="cuda@a"),
    ):
        pass


@contextmanager
def held(settings: Settings, uuid: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Hold a device in another process; yield that process, and the writing end of its child's pipe."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", HOLD, str(settings.home), uuid, str(reading)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[reading]
    ) as process:
        os.close(reading)
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip().isdecimal()
            yield process, writing
        finally:
            process.kill()


def test_a_device_in_use_is_refused_until_the_last_process_of_its_worker_has_ended(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices_module, "CLAIM_S", 0.1)
    chosen = [device for device in visible(here) if not device.is_instance]
    with held(here, WHOLE) as (process, pipe):
        with pytest.raises(ParameterError) as refused, claimed(chosen, here, worker="cuda@c"):
            pass
        (problem,) = refused.value.problems
        assert f"a@b (process {process.pid}) uses it; end that one" in problem.remedy
        # The other device was not kept.
        assert user_of(chosen[1], here) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert user_of(chosen[0], here) is not None
        os.close(pipe)
        monkeypatch.setattr(devices_module, "CLAIM_S", 30.0)
        with claimed(chosen, here, worker="cuda@c"):
            assert str(user_of(chosen[0], here)) == f"cuda@c (process {os.getpid()})"


def test_doctor_says_who_uses_which_device(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    with claimed([Device(uuid=WHOLE, index="0", name="")], here, worker="cuda-0@a"):
        (found,) = (one for one in examine(here) if one.name == "cuda")
    assert found.ok
    assert found.found == (
        f"0 NVIDIA H100 80GB HBM3 {WHOLE}, used by cuda-0@a (process {os.getpid()});"
        f" 2 NVIDIA H100 80GB HBM3 {OTHER}, free"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "9")
    (found,) = (one for one in examine(here) if one.name == "cuda")
    assert (found.ok, found.exit_code) == (False, 2)
