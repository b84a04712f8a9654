"""A stage's process: its results, its errors, its end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import psutil
import pytest

from nss_train.contract import Event, Stage, StageResult
from nss_train.errors import DataError, LimitExceeded, NSSTrainError, Retry, StageLost, StageStalled
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.supervisor import Limits, StageStopped, StopReason, run_child, tail
from tasks.execution.processes.watchdog import Watchdog
from tests.unit.environment import stage_environment
from tests.unit.tasks.execution.processes import alive
from tests.unit.tasks.execution.requests import write_request

LIMITS = Limits(tick_s=0.05, kill_grace_s=0.5)


@pytest.fixture(params=["a new process", "a forked process"], autouse=True)
def hosts(request: pytest.FixtureRequest, warm: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with both kinds of process."""
    kind = None if request.param == "a new process" else warm
    monkeypatch.setitem(globals(), "run_child", partial(run_child, hosts=kind))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


def run(
    folder: Path,
    behaviour: str,
    on_event: Callable[[Event], None] = lambda _: None,
    on_tick: Callable[[], StopReason | None] = lambda: None,
    limits: Limits = LIMITS,
) -> StageResult:
    write_request(folder, behaviour)
    return run_child(
        Stage.PREPARE_DATA,
        folder,
        on_event=on_event,
        on_tick=on_tick,
        limits=limits,
        environment=stage_environment(),
        module="tests.unit.tasks.execution.fake_stages",
    )


def test_events_and_result_arrive(folder: Path) -> None:
    events: list[Event] = []
    result = run(folder, "works", events.append)
    assert [event.fields["step"] for event in events if event.fields] == [1]
    assert not psutil.pid_exists(result.figures["pid"])


def test_no_event_of_a_flood_is_lost(folder: Path) -> None:
    events: list[Event] = []
    run(folder, "flood", events.append)
    assert [event.fields["step"] for event in events if event.fields] == list(range(20_000))


def test_the_stage_s_own_error_comes_back_whole(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(folder, "fails")
    assert str(caught.value) == "The table cannot be read.\n  - a = 1: do b"


def test_a_defect_is_an_error_that_is_not_retried(folder: Path) -> None:
    with pytest.raises(NSSTrainError, match="Unexpected ZeroDivisionError: oops") as caught:
        run(folder, "crashes")
    assert caught.value.retry is Retry.NEVER


def test_a_killed_stage_is_lost_with_its_last_words(folder: Path) -> None:
    with pytest.raises(StageLost, match="signal SIGKILL") as caught:
        run(folder, "killed")
    assert "last words" in str(caught.value)
    assert caught.value.retry is Retry.OTHER_WORKER


def test_the_end_of_the_output_is_kept(folder: Path) -> None:
    run(folder, "talks")
    kept = tail(folder)
    assert len(kept) == 65536
    assert kept.rstrip().endswith("the end")


def test_a_stopped_stage_leaves_no_process_not_even_a_stubborn_grandchild(folder: Path) -> None:
    pids: list[int] = []
    started = time.monotonic()
    with pytest.raises(StageStopped) as caught:
        run(
            folder,
            "hangs",
            on_event=lambda event: pids.extend(event.fields.get("pids", [])),
            on_tick=lambda: StopReason.CANCELLED if pids else None,
        )
    assert caught.value.reason is StopReason.CANCELLED
    assert len(pids) == 2
    assert not [pid for pid in pids if alive(pid)]
    assert time.monotonic() - started < 20


def test_a_watchdog_that_cannot_start_leaves_no_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []

    def refuses(_: Watchdog, session: int) -> AbstractContextManager[None]:
        began.append(session)
        raise OSError("no memory for another process")

    monkeypatch.setattr(Watchdog, "watching", refuses)
    with pytest.raises(OSError, match="no memory"):
        run(folder, "hangs")
    assert len(began) == 1
    assert not alive(began[0])


def test_a_stage_and_its_children_die_with_their_supervisor(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    forked = "forked" in request.node.callspec.id
    write_request(folder, "hangs")
    script = f"""
import sys
from pathlib import Path
from nss_train.contract import Stage
from tasks.settings import child_environment
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.supervisor import Limits, run_child
run_child(Stage.PREPARE_DATA, Path({str(folder)!r}),
          on_event=lambda e: print(*e.fields.get("pids", []), flush=True),
          on_tick=lambda: None, limits=Limits(tick_s=0.05), environment=child_environment(),
          module="tests.unit.tasks.execution.fake_stages", hosts=Hosts(wanted={forked}))
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "\n"  # the process is up
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        supervisor.kill()
        deadline = time.monotonic() + 5
        while any(map(alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not [pid for pid in pids if alive(pid)]


def test_a_stage_without_progress_is_ended(folder: Path) -> None:
    limits = Limits(tick_s=0.05, kill_grace_s=0.2, progress_s=1)
    assert not [pid for pid in stalled(folder, limits, "made no progress for 1 s") if alive(pid)]


# A forked process has begun before anybody looks.
@pytest.mark.parametrize("hosts", ["a new process"], indirect=True)
def test_a_stage_that_does_not_begin_is_ended(folder: Path) -> None:
    limits = Limits(tick_s=0.05, kill_grace_s=0.2, start_s=0)
    assert not [pid for pid in stalled(folder, limits, "did not start within 0 s") if alive(pid)]


def stalled(folder: Path, limits: Limits, says: str) -> list[int]:
    """Run a stage that hangs into a limit; return the processes that it had."""
    pids: list[int] = []
    with pytest.raises(StageStalled, match=says):
        run(folder, "hangs", lambda event: pids.extend(event.fields.get("pids", [])), limits=limits)
    return pids


def test_a_stage_that_takes_too_long_is_its_sender_s_mistake(folder: Path) -> None:
    with pytest.raises(LimitExceeded, match="took more than 1 s") as caught:
        run(folder, "hangs", limits=Limits(tick_s=0.05, kill_grace_s=0.2, total_s=1))
    assert caught.value.retry is Retry.NEVER
