"""A deployment for fault injection: Valkey, S3 behind a proxy, and workers with disks of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from tasks.local.seaweedfs import SeaweedFS
from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tests import clock
from tests.chaos.proxy import Mode

LEASE_S = 6.0
TIMINGS: dict[str, Any] = {
    "lease_ttl_s": LEASE_S,
    "visibility_timeout_s": 10.0,
    "reconcile_every_s": 3.0,
    "tick_s": 0.25,
    "kill_grace_s": 1.0,
    "drain_grace_s": 20.0,
    "start_deadline_s": 60.0,
    "progress_deadline_s": 90.0,
    "checkpoint_every_steps": 1,
    "max_attempts": 40,
    "scratch_free_bytes": 2**20,
}
_DISK = "48m"


class WorkerHost:
    """A worker process on a machine of its own: home, scratch disk, clock."""

    def __init__(self, name: str, folder: Path, settings: Settings) -> None:
        self.name = name
        self.folder = folder
        self.settings = settings.model_copy(update={"home": folder})
        self.process: subprocess.Popen[bytes] | None = None
        self.clock = ""
        """Offset of the worker's clock, such as ``+5m``."""
        self.exits: list[int] = []

    def start(self) -> None:
        # Trainings side by side that each take every core wait for one another most of the time.
        environment = worker_environment(self.settings) | {"OMP_NUM_THREADS": "1"}
        if self.clock:
            environment |= clock.moved(self.clock)
        command = [
            sys.executable,
            "-m",
            "tasks.worker",
            "--queues",
            "cpu,cuda",
            "--name",
            f"{self.name}@chaos",
        ]
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """Kill the process as a power failure would, except that the disk survives."""
        if self.process is not None:
            self.process.kill()
            self.exits.append(self.process.wait())
            self.process = None

    def terminate(self, timeout_s: float) -> None:
        """Let the process end by itself; raise :class:`subprocess.TimeoutExpired` when it does not."""
        if self.process is not None:
            self.process.terminate()
            self.exits.append(self.process.wait(timeout_s))
            self.process = None

    def tree(self) -> list[psutil.Process]:
        """Return the worker's process and all below it, the worker first."""
        if self.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def pool_process(self) -> psutil.Process | None:
        """Return the process that runs the worker's tasks: a fork of the worker."""
        with suppress(psutil.NoSuchProcess):
            return next((p for p in self.tree()[1:] if "tasks.worker" in p.cmdline()), None)
        return None

    def stage_processes(self) -> list[psutil.Process]:
        """Return the processes of the worker's stages: the launcher first, then its ranks."""
        return self._programs("nss_train.child")

    def warm_hosts(self) -> list[psutil.Process]:
        """Return the processes from which the worker's stages are forked."""
        return self._programs("nss_train.host")

    def _programs(self, name: str) -> list[psutil.Process]:
        found = []
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                if name in process.cmdline():
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def is_running(self, attempt: str) -> bool:
        """Tell whether the process of an attempt lives here and is not stopped."""
        found = [p for p in self.stage_processes() if any(attempt in part for part in p.cmdline())]
        return any(p.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) for p in found)

    @property
    def working_on(self) -> str | None:
        """Return ``job.stage.attempt`` of the stage in progress, or ``None``."""
        names = [path.name for path in self.settings.scratch_dir.glob("*.*.*")]
        return names[0] if names else None


class Cluster:
    """All servers and workers of a job service."""

    def __init__(self, folder: Path, *, workers: int, **settings: Any) -> None:
        self.folder = folder
        self._given = TIMINGS | settings
        self.valkey = Valkey(folder / "valkey", append_only=True)
        self.s3 = SeaweedFS(folder / "s3")
        self._workers = workers
        self.hosts: list[WorkerHost] = []
        self._mode_file = folder / "proxy-mode"
        self._running = ExitStack()

    def __enter__(self) -> Self:
        (self.folder / "valkey").mkdir(parents=True)
        self._running.enter_context(self.valkey)
        self._running.enter_context(self.s3)
        self.set_store(Mode.PASS)
        (self._port,) = free_ports(1)
        self._running.enter_context(self._proxy())
        for number in range(self._workers):
            self.hosts.append(self._host(f"w{number}"))
        for host in self.hosts:
            host.start()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            for process in host.tree():
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            host.kill()
        self._running.close()

    @property
    def settings(self) -> Settings:
        """Return a client's settings, which reach the store without the proxy."""
        return self._settings(self.s3.endpoint, self.folder / "client")

    def set_store(self, mode: Mode) -> None:
        self._mode_file.write_text(mode)

    def _settings(self, endpoint: str, home: Path) -> Settings:
        given = {
            "home": home,
            "broker_url": self.valkey.url,
            "store_url": self.s3.url,
            "s3_endpoint": endpoint,
            "s3_access_key": self.s3.access_key,
            "s3_secret_key": self.s3.secret_key,
            "s3_secure": False,
            "warm_hosts": "lazily",
        }
        return Settings.model_validate(given | self._given)

    def _host(self, name: str) -> WorkerHost:
        folder = self.folder / name
        folder.mkdir()
        host = WorkerHost(name, folder, self._settings(f"127.0.0.1:{self._port}", folder))
        host.settings.scratch_dir.mkdir(parents=True)
        self._running.enter_context(small_disk(host.settings.scratch_dir))
        return host

    @contextmanager
    def _proxy(self) -> Iterator[None]:
        ports = [str(self._port), str(self.s3.ports[0]), str(self._mode_file)]
        command = [sys.executable, "-m", "tests.chaos.proxy", *ports]
        with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
            try:
                yield
            finally:
                process.kill()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a disk of its own below a folder, where this user may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def is_small_disk(folder: Path) -> bool:
    """Tell whether filling the folder fills nothing else."""
    return os.path.ismount(folder)


def wait_until(happened: Any, deadline_s: float) -> bool:
    """Wait until it happened; return whether it did in time."""
    deadline = time.monotonic() + deadline_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
