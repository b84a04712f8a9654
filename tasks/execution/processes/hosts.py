"""The warm hosts of a pool's process: they fork the processes of its stages, which then start at once.

A host is :mod:`nss_train.host` in a process of its own, with the environment of a stage. Where there is none,
a new process does the same, only later: :meth:`Hosts.fork` then returns ``None`` and the log says why.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import cast

from nss_train.contract import Stage

logger = logging.getLogger(__name__)

LIGHT = frozenset({Stage.PREPARE_DATA, Stage.SAVE_MODEL})
WITH_TORCH = frozenset({Stage.LOAD_MODEL, Stage.TRAIN})
VARIABLES = {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false", "GOMP_SPINCOUNT": "10000"}
"""Variables of every stage's process: no byte depends on a hash, and no thread is there before a fork.

OpenMP's threads wait for each other at work, and after so many turns asleep. By default they wait at work for
milliseconds, a thousand times a step: on cores that other processes want too, a step took 3 to 20 times as
long."""
FORKS = 1_000
"""Forks after which a host is replaced. A host does nothing between two forks, and holds as much after 1,000
as after one. So this only limits what a defect of a library could do, at the price of its imports: 10 s of
one core, during which a job of one second took five on a machine of two cores."""
READY_S = 120.0
"""Longest wait for the imports of a host. On two cores that others use as well they take 20 s."""
_STATUS_BYTES = 4096
_POLL_S = 0.5
_ROOM = "." * 2048
"""Placeholder in the host's command line, over which its forks write theirs."""


class Fork:
    """A stage's process that a host has forked, with the methods of ``Popen`` that a supervisor needs."""

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "rb", buffering=0)
        self._said = b""
        self._code: int | None = None
        self._look()

    @property
    def has_begun(self) -> bool:
        """Tell whether there was such a process; one that says its pid begins with its stage."""
        return self._said.startswith(b"pid ")

    @property
    def pid(self) -> int:
        return int(self._said.split()[1])

    def poll(self) -> int | None:
        """Return the exit code, or ``None`` while the process runs. A process whose host died is killed."""
        if self._code is None and _is_readable(self._status.fileno(), 0):
            self._look()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when the process has ended; raise as ``Popen`` after so many seconds."""
        while self.poll() is None:
            if not _is_readable(self._status.fileno(), timeout) and timeout is not None:
                raise subprocess.TimeoutExpired("fork", timeout)
        return cast("int", self._code)

    def _look(self) -> None:
        said = self._status.read(_STATUS_BYTES) or b""
        self._said += said
        if not said:
            self._code = -signal.SIGKILL
        elif b"code " in self._said:
            self._code = int(self._said.split()[-1])
        if self._code is not None:
            self._status.close()


class WarmHost:
    """One host: its process, and this end of the channel to it."""

    def __init__(self, stages: Collection[Stage], environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.forks = 0
        self._ready = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = ["--channel-fd", str(theirs.fileno()), "--parent", str(os.getpid()), "--room", _ROOM]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nss_train.host", *sorted(stages), *options],
                env=self.environment | VARIABLES,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def is_ready(self, timeout_s: float = 0) -> bool:
        """Tell whether all is imported, after at most ``timeout_s``."""
        if not self._ready and _is_readable(self._channel.fileno(), timeout_s):
            with suppress(ConnectionResetError):
                self._ready = bool(self._channel.recv(_STATUS_BYTES))
        return self._ready

    def fork(self, words: list[str], *, log: int, events: int, on_wait: Callable[[], None]) -> Fork | None:
        """Ask for a process; return ``None`` when the host ended instead."""
        self.forks += 1
        status, theirs = os.pipe()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._channel, [json.dumps(words).encode()], [log, events, theirs])
        finally:
            os.close(theirs)
        try:
            while not _is_readable(status, _POLL_S):
                on_wait()
        except BaseException:
            self.close()  # whatever it has forked dies with it
            os.close(status)
            raise
        forked = Fork(status)
        return forked if forked.has_begun else None

    def close(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


class Hosts:
    """The hosts of this process, started when they are first needed or :meth:`warm` is called."""

    def __init__(self, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self._hosts: dict[frozenset[Stage], WarmHost] = {}
        self._successors: dict[frozenset[Stage], WarmHost] = {}
        self._failed: set[frozenset[Stage]] = set()

    def warm(self, stages: Collection[Stage], environment: Mapping[str, str]) -> None:
        """Start the hosts of ``stages`` that do not run, and wait for none."""
        for half in {_half(stage) for stage in stages}:
            self._host(half, environment)

    def fork(
        self,
        words: list[str],
        *,
        environment: Mapping[str, str],
        log: int,
        events: int,
        on_wait: Callable[[], None],
    ) -> Fork | None:
        """Return a process for a stage, its folder and module, or ``None`` if there is no host for it."""
        half = _half(Stage(words[0]))
        for started in tuple(self._hosts):
            self._host(started, environment)  # one that was killed is ready again when its stage comes
        for _ in range(2):  # a host ends instead of forking when its packages have changed
            host = self._host(half, environment)
            if host is None or not self._wait(half, host, on_wait):
                return None
            forked = host.fork(words, log=log, events=events, on_wait=on_wait)
            if forked is not None:
                return forked
            host.close()
        logger.warning("a warm host could not fork a stage", extra={"action": "host.failed"})
        return None

    def close(self) -> None:
        for host in (*self._hosts.values(), *self._successors.values()):
            host.close()
        self._hosts.clear()
        self._successors.clear()

    def _host(self, half: frozenset[Stage], environment: Mapping[str, str]) -> WarmHost | None:
        """Return the host of these stages, which may still be importing."""
        if not self._wanted or half in self._failed:
            return None
        self._replace(half)
        host = self._hosts.get(half)
        if host is not None and (host.exit_code is not None or host.environment != environment):
            host.close()
            logger.warning(
                "the warm host of %s is started again", _names(half), extra={"action": "host.restarted"}
            )
            host = None
        if host is None:
            host = self._hosts[half] = WarmHost(half, environment)
        return host

    def _replace(self, half: frozenset[Stage]) -> None:
        """Replace a host that has forked often enough, once its successor is ready."""
        host, successor = self._hosts.get(half), self._successors.get(half)
        if host is None or host.forks < FORKS:
            return
        if successor is None:
            self._successors[half] = WarmHost(half, host.environment)
        elif successor.is_ready() or successor.exit_code is not None:
            host.close()
            self._hosts[half] = self._successors.pop(half)

    def _wait(self, half: frozenset[Stage], host: WarmHost, on_wait: Callable[[], None]) -> bool:
        """Wait until the host has imported all; tell whether it has. One that cannot is not tried again."""
        deadline = time.monotonic() + READY_S
        while not host.is_ready(_POLL_S) and host.exit_code is None and time.monotonic() < deadline:
            on_wait()
        if host.is_ready():
            return True
        if host.exit_code is not None:
            self._hosts.pop(half).close()
            if host.exit_code > 0:
                self._failed.add(half)
        logger.warning("no warm host for %s: it starts anew", _names(half), extra={"action": "host.failed"})
        return False


def _half(stage: Stage) -> frozenset[Stage]:
    return LIGHT if stage in LIGHT else WITH_TORCH


def _names(half: frozenset[Stage]) -> str:
    return " and ".join(sorted(half))


def _is_readable(fd: int, timeout_s: float | None) -> bool:
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))
