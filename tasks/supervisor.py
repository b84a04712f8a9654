"""The child process of a stage: start, watch, stop, reap."""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import psutil
from pydantic import ValidationError

from nss_train import errors
from nss_train.contract import Event, Stage, StageResult
from nss_train.errors import StageLost

logger = logging.getLogger(__name__)

TAIL_BYTES = 65536
_READ_BYTES = 65536
_REAP_S = 5.0
_CLOSED_PIPE_S = 0.02


class StopReason(StrEnum):
    """Why a stage was stopped from outside. None of these is a failure of the stage."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"


class StageStopped(Exception):
    """The stage was stopped, and its processes are gone."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def run_child(
    stage: Stage,
    folder: Path,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], StopReason | None],
    tick_s: float,
    kill_grace_s: float,
    environment: Mapping[str, str],
    module: str = "nss_train.stages",
) -> StageResult:
    """Run a stage in a child process in its own session and return what it says of its work.

    ``on_tick`` is called every ``tick_s`` seconds and may name a reason to stop. Raises
    :class:`StageStopped` then, the stage's own error when it left one, and
    :class:`~nss_train.errors.StageLost` when it ended without a word. Whatever happens, no process
    of the session is left.
    """
    reader, writer = os.pipe()
    try:
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                _command(stage, folder, writer, module),
                env=dict(environment) | {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                start_new_session=True,
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        _pump(process, reader, on_event=on_event, on_tick=on_tick, tick_s=tick_s)
        return _result(process, folder)
    finally:
        os.close(reader)
        end_session(process, grace_s=kill_grace_s)


def tail(folder: Path, size: int = TAIL_BYTES) -> str:
    """The end of what the child printed."""
    log = folder / "log.txt"
    return log.read_bytes()[-size:].decode(errors="replace") if log.is_file() else ""


def end_session(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """SIGTERM, then SIGKILL, to every process of the child's session; reaps the child. Idempotent."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _REAP_S)):
        _signal(_members(process.pid), number)
        deadline = time.monotonic() + wait_s
        while (process.poll() is None or _members(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
    process.wait(_REAP_S)


def _command(stage: Stage, folder: Path, writer: int, module: str) -> list[str]:
    options = ["--events-fd", str(writer), "--parent", str(os.getpid()), "--module", module]
    return [sys.executable, "-m", "nss_train.child", stage.value, str(folder), *options]


def _pump(
    process: subprocess.Popen[bytes],
    reader: int,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], StopReason | None],
    tick_s: float,
) -> None:
    """Pass events on until the child has ended and its pipe is drained, or a tick says why to stop."""
    os.set_blocking(reader, False)
    rest, next_tick = b"", time.monotonic() + tick_s
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            ready = bool(selector.select(0 if ended else tick_s))
            data = os.read(reader, _READ_BYTES) if ready else b""
            rest = _events(rest + data, on_event)
            if ended and not data:
                return
            if ready and not data:
                # The child closed the pipe and is about to end; a closed pipe is always ready.
                time.sleep(_CLOSED_PIPE_S)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + tick_s
                reason = None if ended else on_tick()
                if reason is not None:
                    raise StageStopped(reason)


def _events(data: bytes, on_event: Callable[[Event], None]) -> bytes:
    *lines, rest = data.split(b"\n")
    for line in lines:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            logger.warning("a stage sent what is no event: %r", line[:200])
        else:
            on_event(event)
    return rest


def _result(process: subprocess.Popen[bytes], folder: Path) -> StageResult:
    code = process.wait()
    result, error = folder / "result.json", folder / "error.json"
    if code == os.EX_TEMPFAIL and (folder / "drained.json").is_file():
        raise StageStopped(StopReason.DRAINED)
    if code == 0 and result.is_file():
        return StageResult.model_validate_json(result.read_bytes())
    if error.is_file():
        document = json.loads(error.read_text(encoding="utf-8"))
        logger.info("the stage failed:\n%s", document.pop("traceback", ""))
        raise errors.from_json(document)
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    hint = " (the kernel does this when memory runs out)" if code == -signal.SIGKILL else ""
    raise StageLost(f"The stage's process ended by {how}{hint}.\n{tail(folder, 2000)}")


def _members(session: int) -> list[psutil.Process]:
    """Living processes of a session, in whatever process group they put themselves."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
