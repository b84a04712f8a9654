"""The whole deployment on this machine: broker, store and workers as child processes."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nss_train.errors import InfrastructureError
from nss_train.process import PRIVATE_UMASK
from tasks.app import make_app
from tasks.broker import queues
from tasks.local.seaweedfs import SeaweedFS
from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tasks.permissions import make_folder, private_file
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store

logger = logging.getLogger(__name__)

READY_S = 60.0
STOP_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Flower:
    """The address of Flower, and the password of its only user ``admin``."""

    url: str
    password: str


@contextmanager
def stack(settings: Settings, *, s3: bool = False) -> Iterator[Settings]:
    """Start broker, store and two workers; yield the settings to reach them; take all of it down."""
    if not s3:
        open_store(settings)  # wrong settings of the store are reported before anything starts
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="nss-train-")))
        valkey = running.enter_context(Valkey(folder / "valkey"))
        update: dict[str, object] = {"broker_url": valkey.url}
        if s3:
            server = running.enter_context(SeaweedFS(settings.home / "s3"))
            update |= server.settings
        reachable = Settings.model_validate(dict(settings) | update)
        # One worker for all trainings: two would want the same devices.
        cpu, *trainings = queues.names(settings)
        workers = [running.enter_context(worker(reachable, some)) for some in ([cpu], trainings) if some]
        wait_for_workers(reachable, set(queues.names(settings)), workers)
        yield reachable


@contextmanager
def worker(settings: Settings, served: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker on some queues; its log is ``<home>/logs/<first queue>.log``."""
    arguments = ["tasks.worker", "--queues", ",".join(served), "--name", f"{served[0]}@localhost"]
    with module(arguments, settings, log=settings.home / "logs" / f"{served[0]}.log") as process:
        yield process


@contextmanager
def flower(settings: Settings) -> Iterator[Flower]:
    """Run Flower on a free loopback port, behind a password."""
    (port,) = free_ports(1)
    password = secrets.token_urlsafe(12)
    extra = {"FLOWER_BASIC_AUTH": f"admin:{password}"}
    arguments = ["tasks.flower", "--address=127.0.0.1", f"--port={port}"]
    with module(arguments, settings, log=settings.home / "logs" / "flower.log", extra=extra):
        yield Flower(url=f"http://127.0.0.1:{port}", password=password)


@contextmanager
def module(
    arguments: list[str], settings: Settings, *, log: Path, extra: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module as a child process in its own session; end it with all its children."""
    make_folder(log.parent)
    with private_file(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=worker_environment(settings) | (extra or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )
    try:
        yield process
    finally:
        _end(process)


def wait_for_workers(
    settings: Settings, queues: set[str], workers: Sequence[subprocess.Popen[bytes]] = ()
) -> None:
    """Return when every queue has a worker.

    Raises :class:`InfrastructureError` with logs after a minute, or when one of the ``workers`` has ended.
    """
    app = make_app(settings)
    deadline = time.monotonic() + READY_S
    served: set[str] = set()
    while time.monotonic() < deadline and all(worker.poll() is None for worker in workers):
        answers = app.control.inspect(timeout=0.5).active_queues() or {}
        served = {queue["name"] for worker_queues in answers.values() for queue in worker_queues}
        if queues <= served:
            return
    logs = [settings.home / "logs" / f"{queue}.log" for queue in sorted(queues - served)]
    tails = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.is_file())
    raise InfrastructureError(f"No worker serves {', '.join(sorted(queues - served))}.\n{tails}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return
