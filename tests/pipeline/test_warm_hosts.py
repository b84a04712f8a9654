"""The warm hosts of real workers: they hold no secret, and may die at any moment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from nss_train.contract import Stage
from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.settings import Settings

DEADLINE_S = 120.0
TRAIN = list(Stage).index(Stage.TRAIN)


def warm_hosts() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "nss_train.host" in child.cmdline()]


def test_no_host_holds_a_secret(deployment: Settings) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(warm_hosts()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    secrets = [deployment.s3_access_key.get_secret_value(), deployment.s3_secret_key.get_secret_value()]
    held = [str(host.environ()) for host in warm_hosts()]
    assert len(held) == 3
    assert not [secret for secret in secrets for one in held if secret in one]
    assert not [one for one in held if "NSS_TRAIN_" in one]


@pytest.mark.long
def test_a_job_survives_the_death_of_all_hosts(client: Client, table: Path, config: dict[str, Any]) -> None:
    job_id = client.submit(table=table, config=config)
    deadline = time.monotonic() + DEADLINE_S
    while client.status(job_id).stages[TRAIN].state != "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = warm_hosts()
    for host in killed:
        host.kill()
    *_, last = client.watch(job_id, timeout_s=DEADLINE_S)
    assert last.state is JobState.SUCCEEDED
    # A dead one is reaped with the worker's next stage.
    assert not [host for host in killed if host.is_running() and host.status() != psutil.STATUS_ZOMBIE]
