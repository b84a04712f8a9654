"""Prometheus with the rules of ``deploy/``, sixty times faster."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.local.server import free_ports

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
START_S = 30.0
_SECONDS = {"h": 60, "m": 1}
"""Seconds of each unit after division by sixty."""


def faster(text: str) -> str:
    """Return the text with its durations, and the one threshold in seconds, divided by sixty."""
    shorter = re.sub(r"\b(\d+)([hm])\b", lambda m: f"{int(m[1]) * _SECONDS[m[2]]}s", text)
    return re.sub(r"> 3600\b", "> 60", shorter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query; raise what Prometheus reports as wrong with it."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def fires(self, alert: str) -> bool:
        return bool(self.ask(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus, which reads ``target`` every second; its program must be on the PATH."""
    folder.mkdir()
    (folder / "rules.yaml").write_text(faster((DEPLOY / "rules.yaml").read_text()))
    config = (DEPLOY / "prometheus.yaml").read_text().replace("metrics:9464", target).replace("15s", "1s")
    (folder / "prometheus.yaml").write_text(config)
    (port,) = free_ports(1)
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    made = Prometheus(url=f"http://127.0.0.1:{port}")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            _wait(made)
            yield made
        finally:
            process.terminate()


def _wait(made: Prometheus) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            made.ask("up")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
