"""A burst of jobs from no worker to many and back: ``python -m tests.rehearsals.scaling --jobs 200``.

A scaler with the arithmetic of KEDA's ScaledJob (strategy ``accurate``, one stage for each worker) asks
the exporter's ``/scale`` in each interval and starts workers for trainings; it never ends one. It prints one
JSON object and writes the timeline as a PNG. Exit code 1 when a worker left while it was busy, when a job
did not succeed or when a stage was begun twice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nss_train.contract import Stage
from tasks.app import App, make_app
from tasks.jobs.documents import Outcome
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import Submission
from tasks.local.valkey import Valkey
from tasks.monitoring.exporter import make_server_on
from tasks.settings import Settings, worker_environment
from tasks.submission import submit

POLL_S = 3.0
"""Seconds between two polls. KEDA's default is 30 s; everything here is ten times faster."""
IDLE_EXIT_S = 15.0
STAGES = "benchmarks.slow_stages"


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The state of jobs and workers ``at_s`` seconds after the submission."""

    at_s: float
    waiting: int
    running: int
    workers: int
    done: int


@dataclass(kw_only=True, slots=True)
class Scaler:
    """KEDA's ScaledJob for the queue of trainings, with processes for pods."""

    settings: Settings
    url: str
    most: int
    folder: Path
    alive: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    exits: Counter[int] = field(default_factory=Counter)
    started: int = 0

    def step(self) -> tuple[int, int]:
        """Play one interval; return what waits and runs."""
        self.reap()
        with urllib.request.urlopen(self.url, timeout=10) as answer:
            found = json.load(answer)[self.settings.queue_cuda]
        waiting, running = int(found["waiting"]), int(found["running"])
        for _ in range(self._more(waiting)):
            self._start()
        return waiting, running

    def reap(self) -> None:
        for name, process in list(self.alive.items()):
            code = process.poll()
            if code is not None:
                self.exits[code] += 1
                del self.alive[name]

    def _more(self, waiting: int) -> int:
        """Return how many to start: GetEffectiveMaxScale of KEDA's accurateScalingStrategy."""
        wanted = min(waiting, self.most)
        if wanted + len(self.alive) > self.most:
            return self.most - len(self.alive)
        return max(0, wanted - self._pending())

    def _pending(self) -> int:
        """Count the workers that are not ready: the file of their heartbeat does not exist."""
        ready = {path.name for path in self.settings.heartbeats_dir.glob("*")}
        return sum(1 for name in self.alive if name not in ready)

    def _start(self) -> None:
        self.started += 1
        name = f"cuda{self.started}@localhost"
        options = ["--max-jobs", "1", "--idle-exit-s", str(IDLE_EXIT_S)]
        self.alive[name] = start(self.settings, self.settings.queue_cuda, name, self.folder, *options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=20, help="most that work at a time")
    parser.add_argument("--plot", type=Path, help="PNG file of the timeline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        found, moments = run(Path(name), jobs=arguments.jobs, most=arguments.workers)
    print(json.dumps(found))
    if arguments.plot is not None:
        plot(moments, arguments.plot)
    return 0 if found["succeeded"] == arguments.jobs and not found["ended_while_busy"] else 1


def run(folder: Path, *, jobs: int, most: int) -> tuple[dict[str, Any], list[Moment]]:
    table = folder / "table.csv"
    table.write_text("a,b\n" + "".join(f"{i},{i}\n" for i in range(10)))
    with ExitStack() as running:
        valkey = running.enter_context(Valkey(folder / "valkey"))
        given = {"home": folder / "home", "broker_url": valkey.url, "admission_window": most}
        settings = Settings.model_validate(given)
        app = make_app(settings)
        scaler = Scaler(
            settings=settings, url=running.enter_context(exporter(settings)), most=most, folder=folder
        )
        cpu = start(settings, settings.queue_cpu, "cpu@localhost", folder)
        running.callback(end, cpu)
        ids = [submit.submit(app, Submission(table=table, config={})) for _ in range(jobs)]
        moments = follow(app, scaler, ids)
        return verdict(app, scaler, ids, moments), moments


def follow(app: App, scaler: Scaler, ids: list[str]) -> list[Moment]:
    """Play intervals until all jobs have ended and all workers have left."""
    started, left, moments = time.monotonic(), set(ids), []
    while left or scaler.alive:
        waiting, running = scaler.step()
        left -= {job_id for job_id in left if JobRepository(app.store, job_id).outcome() is not None}
        moments.append(
            Moment(
                at_s=time.monotonic() - started,
                waiting=waiting,
                running=running,
                workers=len(scaler.alive),
                done=len(ids) - len(left),
            )
        )
        time.sleep(POLL_S)
    return moments


def verdict(app: App, scaler: Scaler, ids: list[str], moments: list[Moment]) -> dict[str, Any]:
    records = [JobRepository(app.store, job_id) for job_id in ids]
    outcomes = Counter(ended.outcome for one in records if (ended := one.outcome()) is not None)
    attempts = Counter(len(one.attempts(stage)) for one in records for stage in Stage)
    return {
        "jobs": len(ids),
        "succeeded": outcomes[Outcome.SUCCEEDED],
        "stages_by_attempts": dict(attempts),
        "workers_started": scaler.started,
        "most_at_a_time": max(moment.workers for moment in moments),
        "exit_codes": dict(scaler.exits),
        # A worker that leaves in the middle of a stage leaves an attempt behind that committed nothing.
        "ended_while_busy": sum((n - 1) * times for n, times in attempts.items()),
        "seconds": round(moments[-1].at_s),
    }


def start(settings: Settings, queue: str, name: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.noop_app", "--queues", queue, "--name", name]
    with (folder / f"{queue}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--stages", STAGES, *options],
            env=worker_environment(settings),
            stdout=log,
            stderr=log,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


@contextmanager
def exporter(settings: Settings) -> Iterator[str]:
    """Run an exporter, and yield the address of its ``/scale``."""
    with make_server_on(settings, host="127.0.0.1", port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/scale"
        finally:
            server.shutdown()
            thread.join()


def plot(moments: list[Moment], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at = [moment.at_s for moment in moments]
    above.plot(at, [moment.done for moment in moments], label="jobs that succeeded")
    above.plot(at, [moment.waiting for moment in moments], label="trainings that wait in the queue")
    below.plot(
        at, [moment.workers for moment in moments], label="workers for trainings", drawstyle="steps-post"
    )
    below.plot(at, [moment.running for moment in moments], label="trainings that run", drawstyle="steps-post")
    below.set_xlabel("seconds since the first job was submitted")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.legend(loc="center right")
        axes.grid(visible=True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
