"""The broker as deploy/ sets it up: its configuration, its users, TLS from a throw-away authority."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tests.pipeline.conftest import config, table, worker

__all__ = ["config", "table"]

DEPLOY = Path(__file__).parents[2] / "deploy"
READY_S = 30.0

Role = Callable[[str], Settings]


class GuardedValkey(Valkey):
    """Valkey with deploy/redis.conf, whose paths and port alone are changed, and its users."""

    def __init__(self, folder: Path, secrets: Path) -> None:
        super().__init__(folder, append_only=True)
        self._secrets = secrets

    @property
    def url(self) -> str:
        password = (self._secrets / "health-password").read_text().strip()
        return f"redis://health:{password}@127.0.0.1:{self.ports[0]}/0"

    def _stdin(self) -> bytes:
        given = (DEPLOY / "redis.conf").read_text()
        given = given.replace("/run/secrets", str(self._secrets)).replace("/data", str(self.folder))
        # The wheel's Valkey has no TLS: a proxy speaks it.
        lines = ("bind 127.0.0.1", f"port {self.ports[0]}", "tls-port 0")
        return "\n".join([given, *lines]).encode()


@pytest.fixture(scope="package")
def tls_port() -> int:
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="package")
def secrets(tls_port: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that deploy/make-secrets.sh makes."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    command = [str(DEPLOY / "make-secrets.sh"), str(folder), f"127.0.0.1:{tls_port}", str(folder / "ca.crt")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="package")
def guarded(
    secrets: Path, tls_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuardedValkey]:
    server = GuardedValkey(tmp_path_factory.mktemp("guarded"), secrets)
    with server, tls(tls_port, server.ports[0], secrets):
        yield server


@contextmanager
def tls(port: int, target: int, secrets: Path) -> Iterator[None]:
    """Serve TLS on ``port`` in front of ``target`` with the deployment's certificate."""
    arguments = [str(port), str(target), str(secrets / "server.crt"), str(secrets / "server.key")]
    with subprocess.Popen([sys.executable, "-m", "tests.deploy.tls_proxy", *arguments]) as proxy:
        try:
            wait_for_port(port)
            yield
        finally:
            proxy.terminate()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="package")
def as_role(guarded: GuardedValkey, secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Role:
    """Return the settings of client, worker, flower or metrics: one home, one store, users of their own."""
    home = tmp_path_factory.mktemp("home")

    def settings(role: str) -> Settings:
        url = (secrets / f"broker-url-{role}").read_text()
        return Settings.model_validate({"home": home, "broker_url": url, "reconcile_every_s": 2.0})

    return settings


@pytest.fixture
def connect(as_role: Role) -> Iterator[Callable[[str], Redis]]:
    """Yield a function that opens a plain connection as one of the roles."""
    with ExitStack() as opened:
        yield lambda role: opened.enter_context(
            Redis.from_url(as_role(role).broker_url.get_secret_value(), decode_responses=True)
        )


@pytest.fixture(scope="package")
def workers(as_role: Role, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run one worker for each queue, as the user ``worker``; yield the folder of their logs."""
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as running:
        for queue in ("cpu", "cuda"):
            running.enter_context(worker(as_role("worker"), queue, logs / f"{queue}.log"))
        yield logs


@pytest.fixture(scope="package")
def ended_job(as_role: Role, workers: Path, table: Path, config: dict[str, Any]) -> Any:
    """Return the last status of a job that the role ``client`` submitted and watched, but did not fetch."""
    from tasks.client import Client

    client = Client(as_role("client"))
    job_id = client.submit(table=table, config=config, seed=1)
    *_, last = client.watch(job_id, timeout_s=240)
    return last
