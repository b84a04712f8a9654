"""Check of our configuration on Redis itself: TLS, users, nothing evicted."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tool import DEPLOY, CheckFailed, call

READY_S = 20


def check(folder: Path) -> None:
    port = _free_port()
    secrets = folder / "secrets"
    call(str(DEPLOY / "make-secrets.sh"), secrets)
    _forget_what_is_newer(secrets / "users.acl")
    with subprocess.Popen(
        # Debian's redis-check-rdb is the server binary, which acts by the name it is called by.
        ["redis-server", _configuration(folder, secrets, port)],
        executable=shutil.which("redis-check-rdb"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            _ask(secrets, port, server)
        finally:
            server.terminate()


def _forget_what_is_newer(users: Path) -> None:
    """Remove the rule that Debian's Redis 7.0 does not know: clients report their version since 7.2."""
    users.write_text(users.read_text().replace("+client|setinfo ", ""))


def _configuration(folder: Path, secrets: Path, port: int) -> str:
    given = (DEPLOY / "redis.conf").read_text()
    given = given.replace("/run/secrets", str(secrets)).replace("dir /data", f"dir {folder}")
    path = folder / "redis.conf"
    path.write_text(f"{given}\nbind 127.0.0.1\ntls-port {port}\n")
    return str(path)


def _ask(secrets: Path, port: int, server: subprocess.Popen[str]) -> None:
    """Ping the server as the container's health check does, until it answers."""
    password = (secrets / "health-password").read_text().strip()
    authority = ["--tls", "--cacert", str(secrets / "ca.crt")]
    command = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), *authority, "--user", "health", "ping"]
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        environment = os.environ | {"REDISCLI_AUTH": password}
        done = subprocess.run(command, capture_output=True, check=False, env=environment, text=True)
        if "PONG" in done.stdout:
            return
        time.sleep(0.2)
    server.terminate()
    raise CheckFailed(f"no answer\n{server.stdout.read() if server.stdout else ''}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
