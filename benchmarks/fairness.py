"""Waiting time of a tenant behind another's many jobs: by turns, and first come, first served.

``python -m benchmarks.fairness 200`` submits that many no-op jobs of tenant a, then five of tenant b, to one
worker, and prints one line of a table for each order: seconds until a job of b begins and ends, on average,
and until all have ended. First come, first served is an admission window so large that nothing fills it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nss_train.contract import Stage
from tasks.app import App, make_app
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import Submission
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tasks.submission import submit

ORDERS = {"first come": 10**6, "by turns": Settings.model_fields["admission_window"].default}
NEWCOMERS = 5
COLUMNS = ("order", "b begins after s", "b ends after s", "all end after s")


def main(many: int) -> None:
    print("".join(f"{name:>18}" for name in COLUMNS))
    for order, window in ORDERS.items():
        with tempfile.TemporaryDirectory() as name:
            found = run(Path(name), many, window)
        print(f"{order:>18}" + "".join(f"{seconds:>18.1f}" for seconds in found), flush=True)


def run(folder: Path, many: int, window: int) -> tuple[float, float, float]:
    """Return mean seconds until a job of b begins and until it ends, and seconds until all have ended."""
    table = folder / "table.csv"
    table.write_text("a,b\n" + "".join(f"{i},{i}\n" for i in range(10)))
    with Valkey(folder / "valkey") as valkey:
        given = {"home": folder / "home", "broker_url": valkey.url, "admission_window": window}
        settings = Settings.model_validate(given)
        app = make_app(settings)
        ids = [
            submit.submit(app, Submission(table=table, config={}, tenant=tenant))
            for tenant, count in (("a", many), ("b", NEWCOMERS))
            for _ in range(count)
        ]
        with worker(settings, folder / "worker.log"):
            started = time.monotonic()
            wait(app, ids)
            seconds = time.monotonic() - started
        newcomers = [JobRepository(app.store, job_id) for job_id in ids[many:]]
        return (
            statistics.mean(map(begins_after_s, newcomers)),
            statistics.mean(map(ends_after_s, newcomers)),
            seconds,
        )


@contextmanager
def worker(settings: Settings, log: Path) -> Iterator[None]:
    """Run a worker whose stages do nothing."""
    command = [sys.executable, "-m", "benchmarks.noop_app"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=worker_environment(settings), stdout=output, stderr=output) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def wait(app: App, ids: list[str]) -> None:
    left = set(ids)
    while left:
        left -= {job_id for job_id in left if JobRepository(app.store, job_id).outcome() is not None}
        time.sleep(0.2)


def begins_after_s(records: JobRepository) -> float:
    marker = records.marker(Stage.PREPARE_DATA)
    assert marker is not None  # noqa: S101 (its job has succeeded)
    return (marker.started_at - records.request().submitted_at).total_seconds()


def ends_after_s(records: JobRepository) -> float:
    outcome = records.outcome()
    assert outcome is not None  # noqa: S101 (it was waited for)
    return (outcome.finished_at - records.request().submitted_at).total_seconds()


if __name__ == "__main__":
    main(int(sys.argv[1]))
