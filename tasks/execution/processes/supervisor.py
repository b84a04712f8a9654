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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from nss_train import errors
from nss_train.contract import Event, Stage, StageResult
from nss_train.errors import LimitExceeded, Problem, StageLost, StageStalled
from tasks.execution.processes import session_reaper
from tasks.execution.processes.hosts import VARIABLES, Hosts
from tasks.execution.processes.watchdog import Watchdog

logger = logging.getLogger(__name__)

TAIL_BYTES = 65536
_READ_BYTES = 65536
_REAP_S = 5.0


class Process(Protocol):
    """The process of a stage: a forked or a new one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class StopReason(StrEnum):
    """The reason why a stage was stopped from outside. None of these is a failure of the stage."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"


class StageStopped(Exception):
    """The stage was stopped, and its processes are gone."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The time limits of a stage's process, in seconds."""

    tick_s: float = 0.5
    """Time between two looks at whether to stop."""
    kill_grace_s: float = 2.0
    """Time between SIGTERM and SIGKILL."""
    start_s: float = 120.0
    """Time until the first event."""
    progress_s: float = 900.0
    """Time between two events."""
    total_s: float | None = None


def run_child(
    stage: Stage,
    folder: Path,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], StopReason | None],
    limits: Limits,
    environment: Mapping[str, str],
    module: str = "nss_train.stages",
    quiet: bool = False,
    hosts: Hosts | None = None,
    watchdog: Watchdog | None = None,
) -> StageResult:
    """Run a stage in a child process in its own session and return its result.

    The process is forked by one of ``hosts``, or is a new one if they cannot. Without a ``watchdog`` it gets
    one of its own.
    ``on_tick`` may name a reason to stop, which is raised as :class:`StageStopped`. With ``quiet`` nothing
    that the stage printed or sent is quoted in this process's own log. Raises the stage's own error when it
    left one, :class:`~nss_train.errors.StageLost` when it ended without result or error,
    :class:`~nss_train.errors.StageStalled` when it fell silent and :class:`~nss_train.errors.LimitExceeded`
    when it passed a limit of cost. Whatever happens, also to this process, none of the session is left.
    """
    reader, writer = os.pipe()
    try:
        with (folder / "log.txt").open("ab") as log:
            process = _start(
                [stage.value, str(folder), module],
                environment=environment,
                log=log.fileno(),
                events=writer,
                hosts=hosts,
                on_wait=lambda: _obey(on_tick()),
            )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        with _watched(process.pid, watchdog):
            _pump(process, reader, on_event=on_event, on_tick=on_tick, limits=limits, quiet=quiet)
            return _result(stage, process, folder, quiet=quiet)
    finally:
        os.close(reader)
        end_session(process, grace_s=limits.kill_grace_s)


def _start(
    words: list[str],
    *,
    environment: Mapping[str, str],
    log: int,
    events: int,
    hosts: Hosts | None,
    on_wait: Callable[[], None],
) -> Process:
    """Start the process of a stage, its folder and module, as the leader of a session."""
    if hosts is not None:
        forked = hosts.fork(words, environment=environment, log=log, events=events, on_wait=on_wait)
        if forked is not None:
            return forked
    stage, folder, module = words
    options = ["--events-fd", str(events), "--parent", str(os.getpid()), "--module", module]
    return subprocess.Popen(
        [sys.executable, "-m", "nss_train.child", stage, folder, *options],
        env=dict(environment) | VARIABLES,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=(events,),
        start_new_session=True,
    )


@contextmanager
def _watched(session: int, watchdog: Watchdog | None) -> Iterator[None]:
    """Have a session ended if this process dies inside the block, by its watchdog or by one of its own."""
    if watchdog is None:
        with Watchdog() as own, own.watching(session):
            yield
    else:
        with watchdog.watching(session):
            yield


def tail(folder: Path, size: int = TAIL_BYTES) -> str:
    """Return the end of what the child printed."""
    log = folder / "log.txt"
    return log.read_bytes()[-size:].decode(errors="replace") if log.is_file() else ""


def end_session(process: Process, *, grace_s: float) -> None:
    """Send SIGTERM, then SIGKILL, to every process of the child's session; reap the child. Idempotent."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _REAP_S)):
        left = list(session_reaper.members(process.pid))
        if not left and process.poll() is not None:
            return
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + wait_s
        while (
            process.poll() is None or any(session_reaper.members(process.pid))
        ) and time.monotonic() < deadline:
            time.sleep(0.02)
    if process.poll() is None:
        logger.error("process %d does not end", process.pid, extra={"action": "teardown.incomplete"})


def _pump(
    process: Process,
    reader: int,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], StopReason | None],
    limits: Limits,
    quiet: bool,
) -> None:
    """Pass events on until the child has ended and its pipe is drained, or there is a reason to stop."""
    os.set_blocking(reader, False)
    clock = _Clock(limits)
    rest, next_tick = b"", time.monotonic() + limits.tick_s
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            ready = bool(selector.select(0 if ended else limits.tick_s))
            data = os.read(reader, _READ_BYTES) if ready else b""
            rest = _events(rest + data, on_event, quiet=quiet)
            if ended and not data:
                return
            if data:
                clock.heard()
            elif ready:
                # The child closed the pipe and is about to end; a closed pipe is always ready.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(limits.tick_s)
            if not ended and time.monotonic() >= next_tick:
                next_tick = time.monotonic() + limits.tick_s
                _tick(on_tick, clock)


def _tick(on_tick: Callable[[], StopReason | None], clock: _Clock) -> None:
    _obey(on_tick())
    clock.check()


def _obey(reason: StopReason | None) -> None:
    if reason is not None:
        raise StageStopped(reason)


class _Clock:
    """The times when a stage started and when it was last heard from."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._started = self._last = time.monotonic()
        self._silent = True

    def heard(self) -> None:
        self._last, self._silent = time.monotonic(), False

    def check(self) -> None:
        """Raise when the stage passed a limit."""
        now, limits = time.monotonic(), self._limits
        if limits.total_s is not None and now - self._started > limits.total_s:
            raise _too_long(f"more than {limits.total_s:g} s")
        if self._silent and now - self._started > limits.start_s:
            raise StageStalled(f"The stage's process did not start within {limits.start_s:g} s.")
        if now - self._last > limits.progress_s:
            raise StageStalled(f"The stage made no progress for {limits.progress_s:g} s.")


def _too_long(what: str) -> LimitExceeded:
    """Return the error of a stage that is itself too costly: another worker would allow it no more."""
    remedy = "make the table, or what is asked of it, smaller, or ask the operator for more time"
    problem = Problem(field="job", value=None, remedy=remedy)
    return LimitExceeded(f"The stage took {what}.", [problem])


def _events(data: bytes, on_event: Callable[[Event], None], *, quiet: bool) -> bytes:
    *lines, rest = data.split(b"\n")
    for line in lines:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            logger.warning("a stage sent what is no event: %r", b"" if quiet else line[:200])
        else:
            on_event(event)
    return rest


def _result(stage: Stage, process: Process, folder: Path, *, quiet: bool) -> StageResult:
    code = process.wait()
    result, error = folder / "result.json", folder / "error.json"
    if code == os.EX_TEMPFAIL and (folder / "drained.json").is_file():
        raise StageStopped(StopReason.DRAINED)
    if code == 0 and result.is_file():
        return StageResult.model_validate_json(result.read_bytes())
    if error.is_file():
        document = json.loads(error.read_text(encoding="utf-8"))
        traceback = document.pop("traceback", "")  # the stage printed it, too
        logger.info("the stage failed:\n%s", "its log says why" if quiet else traceback)
        raise errors.from_json(document)
    if code == -signal.SIGXCPU:
        raise _too_long("more time of its processors than it may")
    if code == -signal.SIGABRT and stage is Stage.PREPARE_DATA:
        raise _too_long("more memory than it may")  # a library in C++ ends the process then
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    hint = " (the kernel does this when memory runs out)" if code == -signal.SIGKILL else ""
    raise StageLost(f"The stage's process ended by {how}{hint}.\n{tail(folder, 2000)}")
