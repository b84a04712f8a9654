"""Overhead of a job: no-op jobs through the four stages, against bare chains of four no-op tasks.

``python -m benchmarks.overhead 500`` runs both on one Valkey and one worker each, alternating in
blocks, and prints one JSON line: seconds per job, their ratio, and what the worker holds at the end.
A third kind of chain starts one Python process per task: the price of a clean process alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.noop_app import BARE, PROCESS, bare_chain
from tasks.app import App, make_app
from tasks.jobs.keys import Keys
from tasks.jobs.submission import Submission
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tasks.submission import submit

BLOCK = 25
BLOCK_S = 600


def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valkey").mkdir()
        table = folder / "table.csv"
        table.write_text("a,b\n" + "".join(f"{i},{i}\n" for i in range(10)))
        with Valkey(folder / "valkey") as valkey:
            settings = Settings.model_validate({"home": folder / "home", "broker_url": valkey.url})
            print(json.dumps(run(jobs, settings, table, folder)))


def run(jobs: int, settings: Settings, table: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.noop_app"]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=worker_environment(settings), stdout=log, stderr=log)
    app = make_app(settings)
    kinds: dict[str, Callable[[int], None]] = {
        "job": lambda count: run_jobs(app, table, count),
        "bare": lambda count: run_chains(app, BARE, count),
        "process": lambda count: run_chains(app, PROCESS, count),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    try:
        for function in kinds.values():
            function(1)
        before = held(worker.pid)
        for _ in range(jobs // BLOCK):
            for kind, function in kinds.items():
                started = time.monotonic()
                function(BLOCK)
                seconds[kind].append((time.monotonic() - started) / BLOCK)
        settle(worker.pid, before["processes"], lambda: run_jobs(app, table, 1))
        after = held(worker.pid)
    finally:
        worker.terminate()
        worker.wait()
    typical = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        "jobs": len(seconds["job"]) * BLOCK,
        "seconds_per_job": {kind: round(value, 4) for kind, value in typical.items()},
        "ratio_to_bare_chain": round(typical["job"] / typical["bare"], 1),
        "ratio_to_chain_of_processes": round(typical["job"] / typical["process"], 2),
        "held_before": before,
        "held_after": after,
    }


def run_jobs(app: App, table: Path, count: int) -> None:
    ids = [submit.submit(app, Submission(table=table, config={})) for _ in range(count)]
    wait_until(lambda: all(app.store.exists(Keys(job_id).outcome) for job_id in ids))


def run_chains(app: App, task: str, count: int) -> None:
    app.redis.delete(task)
    for _ in range(count):
        bare_chain(app, task).apply_async()
    wait_until(lambda: int(app.redis.get(task) or 0) == 4 * count)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BLOCK_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a block was not done after {BLOCK_S} s; see the worker's log")
        time.sleep(0.02)


def settle(pid: int, processes: int, work: Callable[[], None]) -> None:
    """Work on until no host of the worker is being replaced: its successor takes over between two stages."""
    deadline = time.monotonic() + BLOCK_S
    while held(pid)["processes"] > processes and time.monotonic() < deadline:
        work()


def held(pid: int) -> dict[str, int]:
    """Return what a worker holds between two jobs."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    return {
        "processes": len(tree),
        "open_files": sum(process.num_fds() for process in tree),
        "rss_kb": sum(process.memory_info().rss for process in tree) // 1024,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
