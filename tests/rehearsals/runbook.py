"""The commands of ``docs/operations.md``, as they are written there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tasks.settings import Settings, worker_environment
from tests.rehearsals.prometheus import Prometheus, faster

RUNBOOK = Path(__file__).parents[2] / "docs" / "operations.md"
LINES = 6
"""Maximum lines shown of a command's output."""


def commands_for(alert: str) -> list[str]:
    """Return the queries and commands in an alert's section, in order."""
    words = re.sub(r"(?<!^)([A-Z])", r" \1", alert).lower().capitalize()
    text = RUNBOOK.read_text()
    section = text[text.index(f"### {words}\n") :]
    section = section[: section.find("\n##", 4)]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", section)]
    return [span for span in spans if is_query(span) or span.startswith("nss-train ")]


def is_query(span: str) -> bool:
    return re.search(r"\bnss_train_|^up\{", span) is not None


def rehearse(span: str, *, job_id: str, settings: Settings, prometheus: Prometheus) -> list[str]:
    """Run a query or a command of the runbook, and return the lines that it prints."""
    if is_query(span):
        samples = prometheus.ask(faster(span))
        return [_sample(sample) for sample in samples] or ["(no series)"]
    words = shlex.split(span.replace("JOB", job_id))[1:]
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *words],
        env=worker_environment(settings) | {"COLUMNS": "160", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return [*lines[:LINES], *(["…"] if len(lines) > LINES else []), f"(exit code {done.returncode})"]


def _sample(sample: dict[str, object]) -> str:
    labels: dict[str, str] = {
        name: value
        for name, value in dict(sample["metric"]).items()  # type: ignore[call-overload]
        if name not in ("__name__", "instance", "job")
    }
    shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{shown}}} {list(sample['value'])[1]}"  # type: ignore[call-overload]
