"""Warm hosts: their forks are as new processes are, share nothing, and outlive nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from nss_train import host as host_module
from nss_train.contract import Event, Stage, StageResult
from nss_train.errors import StageLost
from tasks.execution.processes import hosts as hosts_module
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.supervisor import Limits, StageStopped, StopReason, run_child
from tests.unit.environment import stage_environment
from tests.unit.tasks.execution.requests import write_request

from .test_supervisor import alive

MakeFolder = Callable[[], Path]


@pytest.fixture
def hosts(warm: Hosts) -> Hosts:
    return warm


@pytest.fixture
def folders(tmp_path: Path) -> MakeFolder:
    """Return a function that makes the folder of a stage."""

    def make() -> Path:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        for part in ("in", "out"):
            (folder / part).mkdir(parents=True)
        return folder

    return make


def run(
    folder: Path,
    hosts: Hosts | None,
    behaviour: str = "looks",
    *,
    stage: Stage = Stage.PREPARE_DATA,
    on_event: Callable[[Event], None] = lambda _: None,
    on_tick: Callable[[], StopReason | None] = lambda: None,
    environment: dict[str, str] | None = None,
) -> StageResult:
    write_request(folder, behaviour)
    return run_child(
        stage,
        folder,
        on_event=on_event,
        on_tick=on_tick,
        limits=Limits(tick_s=0.05, kill_grace_s=0.5),
        environment=environment or stage_environment(),
        module="tests.unit.tasks.execution.host_stages",
        hosts=hosts,
    )


def hosts_of_this_process() -> list[psutil.Process]:
    """Return the hosts of prepare_data's processes."""
    found = [child for child in psutil.Process().children() if "nss_train.host" in child.cmdline()]
    return [child for child in found if "prepare_data" in child.cmdline()]


def test_a_forked_process_is_as_a_new_one(folders: MakeFolder, hosts: Hosts) -> None:
    new, forked = folders(), folders()
    seen = [run(new, None).figures["seen"], run(forked, hosts).figures["seen"]]
    commands = [one.pop("command") for one in seen]
    assert seen[0] == seen[1]
    assert commands[0] == ["-m", "nss_train.child", "prepare_data", str(new)]
    assert commands[1] == ["-m", "nss_train.child", "prepare_data", str(forked)]
    assert len(hosts_of_this_process()) == 1


def test_two_forks_share_neither_luck_nor_files(folders: MakeFolder, hosts: Hosts) -> None:
    first, second = (run(folders(), hosts).figures for _ in range(2))
    assert not set(first["drawn"]) & set(second["drawn"])
    assert first["seen"]["files"] == second["seen"]["files"]


def test_a_host_does_nothing_that_a_fork_could_notice(folders: MakeFolder, hosts: Hosts) -> None:
    forked, again = (run(folders(), hosts, stage=Stage.LOAD_MODEL).figures for _ in range(2))
    # Arrow's allocator has a thread of its own, and OpenBLAS one for each further core: both survive forks.
    assert set(forked["threads"]) <= {"jemalloc_bg_thd", "python"}
    assert len(forked["threads"]) <= 1 + 2 * (os.cpu_count() or 1)
    assert forked["frozen"] > 100_000
    assert not forked["cuda"]
    assert not forked["bitsandbytes"]
    assert forked["bitsandbytes_is_known"]
    assert not set(forked["drawn"]) & set(again["drawn"])


def test_a_stage_whose_host_is_killed_is_lost_with_all_its_processes(
    folders: MakeFolder, hosts: Hosts
) -> None:
    pids: list[int] = []

    def kill_host(event: Event) -> None:
        if "pids" in event.fields:
            pids.extend(event.fields["pids"])
            hosts_of_this_process()[0].kill()

    with pytest.raises(StageLost):
        run(folders(), hosts, "waits", on_event=kill_host)
    assert len(pids) == 2
    assert not [pid for pid in pids if alive(pid)]
    assert run(folders(), hosts).figures["seen"]["leads_its_session"]


@pytest.mark.long
def test_a_host_is_replaced_after_so_many_forks(
    folders: MakeFolder, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folders(), hosts)
    (before,) = hosts_of_this_process()
    monkeypatch.setattr(hosts_module, "FORKS", 1)
    deadline = time.monotonic() + 60
    while before.is_running() and time.monotonic() < deadline:
        run(folders(), hosts)
    assert before.pid not in [process.pid for process in hosts_of_this_process()]


@pytest.mark.long
def test_a_host_serves_one_environment(folders: MakeFolder, hosts: Hosts) -> None:
    given = stage_environment() | {"TOLD": "this stage"}
    assert run(folders(), hosts, environment=given).figures["seen"]["environment"]["TOLD"] == "this stage"
    assert "TOLD" not in run(folders(), hosts).figures["seen"]["environment"]


def test_without_a_host_a_stage_gets_a_new_process(
    folders: MakeFolder, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path_factory.mktemp("broken")
    (broken / "pandas.py").write_text("raise ImportError('no pandas here')")
    path = os.pathsep.join([str(broken), *sys.path])
    environment = stage_environment() | {"PYTHONPATH": path}
    hosts = Hosts()
    for _ in range(2):
        assert run(folders(), hosts, "idles", environment=environment).stage is Stage.PREPARE_DATA
    assert "no warm host for prepare_data and save_model" in caplog.text
    assert caplog.text.count("no warm host") == 1
    hosts.close()


def test_a_stage_can_be_cancelled_while_its_host_imports(folders: MakeFolder) -> None:
    hosts = Hosts()
    try:
        with pytest.raises(StageStopped):
            run(folders(), hosts, on_tick=lambda: StopReason.CANCELLED)
    finally:
        hosts.close()


def test_no_process_outlives_the_one_that_started_the_host(tmp_path: Path) -> None:
    code = (
        "import sys, time; from tasks.execution.processes.hosts import *;"
        "from tasks.settings import child_environment;"
        "hosts = Hosts(); hosts.warm([Stage.PREPARE_DATA], child_environment());"
        "(host,) = hosts._hosts.values(); print(host.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
        deadline = time.monotonic() + 5
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(pid)


def test_a_host_ends_rather_than_forking_when_its_modules_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "edited.py"
    source.write_text("")
    edited = ModuleType("nss_train.edited")
    edited.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "nss_train.edited", edited)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        host = host_module.Host(theirs)
        os.utime(source, (1, 1))
        ours.send(json.dumps(["prepare_data", "folder", "module"]).encode())
        assert host.serve() is None
