"""Our delivery options and one slow task: ``celery -A tests.pipeline.slow_app worker``."""

from __future__ import annotations

import time
from pathlib import Path

from tasks.app import make_app
from tasks.settings import Settings

app = make_app(Settings())
app.conf.include = []


@app.task(name="test.slow")
def slow(log: str, seconds: float) -> None:
    with Path(log).open("a") as file:
        file.write("started\n")
    time.sleep(seconds)
    with Path(log).open("a") as file:
        file.write("ended\n")
