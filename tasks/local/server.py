"""A real server as a child process, which ends with the process that started it.

The servers come as wheels, listen on loopback by default, and take free ports and random credentials. A
secret is never on a command line, where ``ps`` shows it. The library mirakuru is not used: it marks servers
in their environment, and a program that imports it kills, when it exits, every process whose mark contains
the program's process id, even the server of another program.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from nss_train.errors import InfrastructureError
from nss_train.process import PRIVATE_UMASK
from tasks.permissions import make_folder, private_file

_log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_START_DEADLINE_S = 60.0
_POLL_S = 0.05
_STOP_GRACE_S = 5.0
_LOG_TAIL_BYTES = 2000
# A probed port is free only until someone else takes it, so a first start is tried on several.
_START_ATTEMPTS = 3

# Runs between fork and exec, in a fresh interpreter: code in a forked copy of this threaded process
# (Popen's preexec_fn) could deadlock. The death signal (1 = PR_SET_PDEATHSIG, Linux only) survives exec;
# a parent that died before it was set is noticed by its pid.
_LAUNCHER = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Server(ABC):
    """A server process in its own session, with its data and its log in one folder.

    Start it from a thread that lives as long as the server is needed: the kernel ties the death
    signal to the starting thread. After :meth:`stop`, :meth:`start` brings it back on the same port
    with the same credentials and the same data.
    """

    name: ClassVar[str]
    error: ClassVar[type[InfrastructureError]]

    def __init__(self, folder: Path, *, host: str = LOOPBACK) -> None:
        self.folder = folder
        self.host = host
        """Address that the server listens on."""
        self.ports: tuple[int, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            BrokerUnavailable, StoreUnavailable: with the end of the server's log.
        """
        if self._process is not None:
            raise RuntimeError(f"{self.name} runs already")
        attempts = 1 if self.ports else _START_ATTEMPTS
        for attempt in range(1, attempts + 1):
            self.ports = self.ports if attempts == 1 else free_ports(self._port_count())
            try:
                return self._start_once()
            except _EndedEarly as ended:
                if attempt == attempts:
                    raise self._failure(f"ended with exit code {ended}") from None
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL, to the whole process group; reap it. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL at once, as when a machine dies."""
        self._end(signal.SIGKILL)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _port_count(self) -> int: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _stdin(self) -> bytes:
        return b""

    def _start_once(self) -> Self:
        make_folder(self.folder)
        started = time.monotonic()
        self._process = self._spawn()
        try:
            self._wait_until_it_answers(started + _START_DEADLINE_S)
        except BaseException:
            self.kill()
            raise
        seconds = time.monotonic() - started
        _log.info(
            "%s answers on %s:%d after %.1f s",
            self.name,
            self.host,
            self.ports[0],
            seconds,
            extra={"action": "server.started"},
        )
        return self

    def _spawn(self) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        with private_file(self.log_path, "ab") as log, tempfile.TemporaryFile() as stdin:
            stdin.write(self._stdin())
            stdin.seek(0)
            return subprocess.Popen(
                [*launcher, *self._command()],
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # Nothing of our environment: weed would take its credentials from AWS_* variables.
                env={"HOME": str(self.folder)},
                start_new_session=True,
                umask=PRIVATE_UMASK,
            )

    def _wait_until_it_answers(self, deadline: float) -> None:
        assert self._process is not None  # noqa: S101 (narrowing for mypy)
        while not self._answers():
            code = self._process.poll()
            if code is not None:
                raise _EndedEarly(code)
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {_START_DEADLINE_S:.0f} s")
            time.sleep(_POLL_S)

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number, grace_s in ((first, _STOP_GRACE_S), (signal.SIGKILL, _STOP_GRACE_S)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
                break
        _log.info(
            "%s ended with exit code %s", self.name, process.returncode, extra={"action": "server.stopped"}
        )

    def _failure(self, what: str) -> InfrastructureError:
        tail = self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return self.error(f"{self.name} {what}. The end of {self.log_path}:\n{tail}")


class _EndedEarly(Exception):
    """The server's process ended before it answered; holds the exit code."""


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports that nothing listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return tuple(int(one.getsockname()[1]) for one in sockets)
    finally:
        for one in sockets:
            one.close()
