"""Log lines for machines."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging
from tasks.telemetry.logs import about, configure
configure("json")
with about(job_id="job-0001", stage="train"), about(attempt=2):
    logging.getLogger("x").warning("kept %d", 5, extra={"action": "checkpoint.saved"})
logging.getLogger("x").warning("outside")
"""


def test_each_line_names_job_stage_and_attempt() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    inside, outside = map(json.loads, done.stderr.splitlines())
    assert inside["message"] == "kept 5"
    named = {name: inside[name] for name in ("job_id", "stage", "attempt", "action")}
    assert named == {"job_id": "job-0001", "stage": "train", "attempt": 2, "action": "checkpoint.saved"}
    assert "job_id" not in outside
