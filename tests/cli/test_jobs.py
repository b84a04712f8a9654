"""What the commands about jobs say of what they did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nss_train.contract import Stage
from tasks.app import make_app
from tasks.client import Client
from tasks.lease import Lease
from tasks.settings import Settings, worker_environment


def said(settings: Settings, *words: str) -> str:
    command = [sys.executable, "-m", "tasks.cli", *words]
    done = subprocess.run(
        command, env=worker_environment(settings), check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip()


def test_cancelling_says_whether_the_job_has_ended(settings: Settings, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,x\n2,y\n3,z\n")
    client, redis = Client(settings), make_app(settings).redis
    idle, busy = (client.submit(table=table) for _ in range(2))
    assert said(settings, "cancel", idle) == f"{idle}: cancelled"
    lease = Lease.acquire(redis, busy, Stage.PREPARE_DATA, ttl_s=60)
    assert lease is not None
    assert said(settings, "cancel", busy) == f"{busy}: cancellation is asked for"
    assert client.status(idle).ended
    assert not client.status(busy).ended
    lease.release()
