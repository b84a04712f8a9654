"""The S3 server as compose.yaml starts it: TLS, a bucket of its own, nothing but S3 to the outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from nss_train.errors import StoreUnavailable
from tasks.local.seaweedfs import find_weed
from tasks.local.server import free_ports
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store
from tests.deploy.conftest import DEPLOY, wait_for_port

REPOSITORY = DEPLOY.parent


@pytest.fixture(scope="module")
def s3_with_tls(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield the settings to reach the server of compose.yaml; only its ports and paths are changed."""
    folder = tmp_path_factory.mktemp("s3")
    port, *others = free_ports(8)
    names = [f"{part}.port{kind}" for part in ("filer", "master", "volume") for kind in ("", ".grpc")]
    moved = [f"-{name}={number}" for name, number in zip(["s3.port.grpc", *names], others, strict=True)]
    command = [find_weed(), *command_of("s3", folder, secrets), f"-s3.port={port}", *moved]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for_port(port)
            yield settings(secrets, port)
        finally:
            server.kill()


def command_of(service: str, data: Path, secrets: Path) -> list[str]:
    command = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][service]["command"]
    return [one.replace("/run/secrets", str(secrets)).replace("=/data", f"={data}") for one in command]


def settings(secrets: Path, port: int) -> Settings:
    keys = {
        name: (secrets / name.replace("_", "-")).read_text() for name in ("s3_access_key", "s3_secret_key")
    }
    where = {"store_url": "s3://nss-train", "s3_endpoint": f"127.0.0.1:{port}", "s3_secure": True}
    return Settings.model_validate(where | keys)


def run(script: list[str], settings: Settings, authority: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *script],
        check=False,
        capture_output=True,
        cwd=REPOSITORY,
        env=worker_environment(settings) | {"SSL_CERT_FILE": str(authority), "PYTHONPATH": str(REPOSITORY)},
        text=True,
        timeout=120,
    )


USE = """
from tasks.settings import Settings
from tasks.store.open import open_store
store = open_store(Settings())
store.check()
print(store.put_if_absent("jobs/a/outcome.json", b"1"), store.put_if_absent("jobs/a/outcome.json", b"2"))
"""


def test_the_bucket_is_made_once_and_is_the_store_of_the_workers(
    s3_with_tls: Settings, secrets: Path
) -> None:
    for _ in range(2):
        made = run(["deploy/make_bucket.py"], s3_with_tls, secrets / "ca.crt")
        assert made.returncode == 0, made.stderr
    used = run(["-c", USE], s3_with_tls, secrets / "ca.crt")
    assert used.stdout.split() == ["True", "False"], used.stderr


def test_a_store_with_a_strange_certificate_is_refused(s3_with_tls: Settings) -> None:
    with pytest.raises(StoreUnavailable):
        open_store(s3_with_tls).check()
