"""The processes of ``deploy/Procfile`` with Redis and S3 behind TLS: ``python -m tests.rehearsals.stack``.

Redis runs with ``deploy/redis.conf`` and the users of ``deploy/users.acl``, S3 as ``deploy/compose.yaml``
starts it, the processes under honcho. A client submits a training; while it runs, screenshots of Flower and
Prometheus are taken into a folder. Then roles try what they may not do. It prints what happened; exit code 1
when the job did not succeed or a wrong role was let in. It needs ``redis-check-rdb`` (Debian's redis-tools:
the server under another name), ``prometheus`` and ``chromium`` on the PATH, and honcho (``--honcho``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.local.seaweedfs import find_weed
from tasks.local.server import free_ports
from tasks.settings import Settings
from tests.deploy.conftest import DEPLOY, wait_for_port
from tests.deploy.test_store import command_of
from tests.rehearsals.prometheus import prometheus

JOB_S, READY_S = 600.0, 60.0
METRICS, FLOWER = "127.0.0.1:9464", "127.0.0.1:5555"
QUERY = "nss_train_stages"

Environment = dict[str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--honcho", default="honcho", help="its program")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="stack-")))
        broker, s3 = free_ports(2)
        secrets = make_secrets(folder, broker)
        running.enter_context(redis(folder, secrets, broker))
        running.enter_context(store(folder, secrets, s3))
        environment = settings(folder, secrets, s3)
        running.enter_context(processes(given.honcho, folder, environment))
        watching = running.enter_context(prometheus(folder / "prometheus", METRICS))
        os.environ.update(environment | as_role("client", secrets))
        client = Client(Settings())
        job_id = client.submit(table=given.table, config=given.config, seed=1)
        print(f"job {job_id} was submitted by the user client")
        wait_for_steps(client, job_id)
        photograph(f"http://{login(secrets)}@{FLOWER}/tasks", given.out / "flower.png")
        page = f"{watching.url}/graph?g0.expr={QUERY}&g0.tab=0&g0.range_input=2m"
        photograph(page, given.out / "prometheus.png")
        *_, last = client.watch(job_id, timeout_s=JOB_S)
        print(f"job {job_id}: {last.state}")
        refused = [wrong_role(*one, secrets=secrets, job_id=job_id, table=given.table) for one in WRONG]
    return 0 if last.state is JobState.SUCCEEDED and all(refused) else 1


WRONG = (
    ("metrics", "submit", "TABLE"),
    ("flower", "submit", "TABLE"),
    ("client", "reconcile"),
    ("nobody", "submit", "TABLE"),
)
"""Users, and commands that they may not run."""


def wrong_role(role: str, *command: str, secrets: Path, job_id: str, table: Path) -> bool:
    """Run a command as a role; tell whether the broker refused it."""
    words = [str(table) if word == "TABLE" else word.replace("JOB", job_id) for word in command]
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *words],
        env=os.environ | as_role(role, secrets),
        capture_output=True,
        check=False,
        text=True,
    )
    said = " ".join((done.stdout + done.stderr).split())
    print(f"{role}: nss-train {' '.join(command)}: exit code {done.returncode}: {said[:300]}")
    return done.returncode != 0


def make_secrets(folder: Path, port: int) -> Path:
    secrets = folder / "secrets"
    command = [
        str(DEPLOY / "make-secrets.sh"),
        str(secrets),
        f"127.0.0.1:{port}",
        str(secrets / "ca.crt"),
    ]
    subprocess.run(command, check=True)
    # Debian's Redis is 7.0; clients report their version since 7.2.
    users = secrets / "users.acl"
    users.write_text(users.read_text().replace("+client|setinfo ", ""))
    return secrets


def as_role(role: str, secrets: Path) -> Environment:
    """Return the broker URL of a user; for one that does not exist, with the password of another."""
    path = secrets / f"broker-url-{role}"
    url = path.read_text() if path.exists() else (secrets / "broker-url-client").read_text()
    return {"NSS_TRAIN_BROKER_URL": url if path.exists() else url.replace("//client:", f"//{role}:")}


def settings(folder: Path, secrets: Path, s3: int) -> Environment:
    """Return deploy/environment.example for this machine, with the values that are secrets elsewhere."""
    return {
        "NSS_TRAIN_HOME": str(folder / "home"),
        "NSS_TRAIN_STORE_URL": "s3://nss-train",
        "NSS_TRAIN_S3_ENDPOINT": f"127.0.0.1:{s3}",
        "NSS_TRAIN_S3_SECURE": "true",
        "NSS_TRAIN_S3_ACCESS_KEY": (secrets / "s3-access-key").read_text().strip(),
        "NSS_TRAIN_S3_SECRET_KEY": (secrets / "s3-secret-key").read_text().strip(),
        "SSL_CERT_FILE": str(secrets / "ca.crt"),
    }


def login(secrets: Path) -> str:
    return (secrets / "flower-basic-auth").read_text().strip()


@contextmanager
def redis(folder: Path, secrets: Path, port: int) -> Iterator[None]:
    data = folder / "redis"
    data.mkdir()
    text = (DEPLOY / "redis.conf").read_text()
    text = text.replace("/run/secrets", str(secrets)).replace("dir /data", f"dir {data}")
    (data / "redis.conf").write_text(f"{text}\nbind 127.0.0.1\ntls-port {port}\n")
    program = shutil.which("redis-check-rdb")
    with running(["redis-server", str(data / "redis.conf")], data / "log", program=program):
        wait_for_port(port)
        yield


@contextmanager
def store(folder: Path, secrets: Path, port: int) -> Iterator[None]:
    data = folder / "s3"
    data.mkdir()
    names = [f"{part}.port{kind}" for part in ("filer", "master", "volume") for kind in ("", ".grpc")]
    moved = [f"-{n}={p}" for n, p in zip(["s3.port.grpc", *names], free_ports(7), strict=True)]
    command = [find_weed(), *command_of("s3", data, secrets), f"-s3.port={port}", *moved]
    with running(command, data / "log"):
        wait_for_port(port)
        environment = settings(folder, secrets, port)
        deadline = time.monotonic() + READY_S
        while subprocess.run(
            [sys.executable, str(DEPLOY / "make_bucket.py")], env=os.environ | environment, check=False
        ).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError("the bucket cannot be made")
            time.sleep(1)
        yield


@contextmanager
def processes(honcho: str, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run cpu, cuda, metrics and flower from the Procfile and one environment file."""
    secrets = folder / "secrets"
    lines = environment | as_role("worker", secrets) | {"FLOWER_BASIC_AUTH": login(secrets)}
    for role in ("metrics", "flower"):
        lines |= {f"{role.upper()}_BROKER_URL": as_role(role, secrets)["NSS_TRAIN_BROKER_URL"]}
    file = folder / ".env"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))
    command = [honcho, "--procfile", str(DEPLOY / "Procfile"), "--env", str(file), "start"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with running(command, folder / "honcho.log", environment=os.environ | {"PATH": path}):
        for address in (METRICS, FLOWER):
            wait_for_port(int(address.rpartition(":")[2]))
        yield


@contextmanager
def running(
    command: list[str], log: Path, *, program: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, executable=program, stdout=output, stderr=output, env=environment
        ) as process,
    ):
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def wait_for_steps(client: Client, job_id: str) -> None:
    deadline = time.monotonic() + JOB_S
    while not any((stage.progress or {}).get("step", 0) >= 10 for stage in client.status(job_id).stages):
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {job_id} does not train")
        time.sleep(0.5)


def photograph(url: str, path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1500,900"]
    command = ["chromium", *options, "--virtual-time-budget=8000", f"--screenshot={path}", url]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
