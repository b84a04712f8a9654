"""The scripts of deploy/ do what the containers need of them."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY


def health(home: Path, *arguments: str) -> int:
    command = [str(DEPLOY / "healthcheck.sh"), *arguments]
    return subprocess.run(
        command, check=False, stderr=subprocess.DEVNULL, env=os.environ | {"NSS_TRAIN_HOME": str(home)}
    ).returncode


def beat(home: Path, name: str, *, age_s: float) -> None:
    heartbeat = home / "heartbeats" / name
    heartbeat.parent.mkdir(exist_ok=True)
    heartbeat.touch()
    then = time.time() - age_s
    os.utime(heartbeat, (then, then))


@pytest.mark.parametrize(
    ("age_s", "minutes", "code"), [(5, "1", 0), (90, "1", 1), (90, "15", 0), (1000, "15", 1)]
)
def test_a_worker_lives_as_long_as_its_heartbeat_is_young(
    age_s: int, minutes: str, code: int, tmp_path: Path
) -> None:
    beat(tmp_path, f"cpu@{platform.node()}", age_s=age_s)
    assert health(tmp_path, minutes) == code


def test_a_worker_without_a_heartbeat_is_not_well(tmp_path: Path) -> None:
    assert health(tmp_path) == 1
    beat(tmp_path, "cpu@elsewhere", age_s=1)
    assert health(tmp_path) == 1


def test_one_dead_worker_of_two_that_share_a_home_is_noticed(tmp_path: Path) -> None:
    beat(tmp_path, f"cpu@{platform.node()}", age_s=1)
    beat(tmp_path, f"cuda@{platform.node()}", age_s=1000)
    assert health(tmp_path, "1") == 1
    assert health(tmp_path, "1", "cpu") == 0
    assert health(tmp_path, "1", "cuda") == 1


def test_secrets_in_files_become_variables_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "NSS_TRAIN_S3_SECRET_KEY").write_text("a b'\"$c\n")
    (tmp_path / "server.key").write_text("no variable")
    done = subprocess.run(
        [str(DEPLOY / "with-secrets.sh"), "printenv"],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": str(tmp_path)},
    )
    assert "NSS_TRAIN_S3_SECRET_KEY=a b'\"$c\n" in done.stdout
    assert "no variable" not in done.stdout


def test_secrets_are_made_once_and_the_folder_is_closed(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    again = subprocess.run([str(DEPLOY / "make-secrets.sh"), str(secrets)], check=False, capture_output=True)
    assert again.returncode != 0


@pytest.mark.parametrize(
    ("broker", "s3", "names"),
    [
        ("redis.example.org:6379", "s3.example.org:9000", ["redis.example.org", "s3.example.org"]),
        ("192.0.2.7:6379", "s3.example.org", ["192.0.2.7", "s3.example.org"]),
        ("[2001:db8::7]:6379", "[2001:db8::8]", ["2001:db8::7", "2001:db8::8"]),
    ],
    ids=["names", "IPv4", "IPv6"],
)
def test_the_certificate_is_good_for_the_hosts_that_were_given(
    broker: str, s3: str, names: list[str], tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    command = [str(DEPLOY / "make-secrets.sh"), str(secrets), broker, "/etc/nss-train/ca.crt", s3]
    subprocess.run(command, check=True)
    assert f"@{broker}/0?" in (secrets / "broker-url-worker").read_text()
    assert [name for name in [*names, "redis", "localhost"] if not is_good_for(name, secrets)] == []
    assert not is_good_for("elsewhere.example.org", secrets)


def is_good_for(name: str, secrets: Path) -> bool:
    kind = "-verify_ip" if ":" in name or name.replace(".", "").isdecimal() else "-verify_hostname"
    command = ["openssl", "verify", "-CAfile", "ca.crt", kind, name, "server.crt"]
    return subprocess.run(command, check=False, capture_output=True, cwd=secrets).returncode == 0


def test_containers_can_read_what_is_mounted_for_them(secrets: Path) -> None:
    """Compose keeps the mode of a file, and each image has a user of its own."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()}
    assert modes.pop("ca.key") == 0o600
    assert set(modes.values()) == {0o644}


def test_redis_is_given_hashes_and_no_password(secrets: Path) -> None:
    users = (secrets / "users.acl").read_text()
    for role in ("client", "worker", "flower", "metrics"):
        url = (secrets / f"broker-url-{role}").read_text()
        assert url.split(":")[2].split("@")[0] not in users
    assert "@" not in users.replace("-@all", "")
