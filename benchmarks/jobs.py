"""Many jobs, one after another, in one worker, and what they leave: ``python benchmarks/jobs.py 100``.

It prints one JSON line per tenth job (processes, open files and resident memory of the worker's tree,
entries of its scratch folder and of the temporary folder) and one with the slope of the memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tasks.client import Client
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment

CONFIG = {
    "training": {
        "pretrained_model": "SmolLM2-tiny",
        "num_input_records_to_sample": 30,
        "gradient_accumulation_steps": 1,
        "lora_r": 2,
    },
    "data": {"holdout": 0},
    "preflight": {"disabled_checks": ["dataset.size"]},
}
EVERY = 10


def main(jobs: int, model: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, temporary = Path(folder) / "home", Path(folder) / "tmp"
        for path in (home / "models", temporary, Path(folder) / "valkey"):
            path.mkdir(parents=True)
        (home / "models" / "SmolLM2-tiny").symlink_to(model.absolute())
        table = Path(folder) / "table.csv"
        table.write_text("name,size\n" + "".join(f"bird {i % 5},{i}\n" for i in range(30)))
        with Valkey(Path(folder) / "valkey") as valkey:
            settings = Settings.model_validate({"home": home, "broker_url": valkey.url})
            run(jobs, settings, table, temporary)


def run(jobs: int, settings: Settings, table: Path, temporary: Path) -> None:
    command = [sys.executable, "-m", "tasks.worker", "--queues", "cpu,cuda", "--name", "one@localhost"]
    environment = worker_environment(settings) | {"TMPDIR": str(temporary)}
    with (temporary.parent / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    client, series = Client(settings), []
    try:
        for number in range(1, jobs + 1):
            job_id = client.submit(table=table, config=CONFIG, seed=1)
            *_, last = client.watch(job_id, timeout_s=300)
            series.append(
                left(worker.pid, settings, temporary) | {"job": number, "outcome": last.state.value}
            )
            if number == 1 or number % EVERY == 0:
                print(json.dumps(series[-1]), flush=True)
    finally:
        worker.terminate()
        worker.wait()
    settled = [entry for entry in series if entry["job"] > EVERY]
    slope = np.polyfit([e["job"] for e in settled], [e["rss_kb"] for e in settled], 1)[0]
    outcomes = {entry["outcome"] for entry in series}
    print(
        json.dumps(
            {"jobs": jobs, "outcomes": sorted(outcomes), "rss_slope_kb_per_job": round(float(slope), 2)}
        )
    )


def left(pid: int, settings: Settings, temporary: Path) -> dict[str, Any]:
    """Return what the worker holds between two jobs."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    scratch = settings.scratch_dir
    return {
        "processes": len(tree),
        "open_files": sum(process.num_fds() for process in tree),
        "rss_kb": sum(process.memory_info().rss for process in tree) // 1024,
        "scratch_entries": len(list(scratch.iterdir())) if scratch.is_dir() else 0,
        "temporary_entries": len(list(temporary.iterdir())),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
