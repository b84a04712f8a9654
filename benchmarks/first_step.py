"""Time from a job's submission to its first optimizer step: ``python -m benchmarks.first_step 20``.

One worker takes all stages; its base model is prepared, and the table is small. It prints one JSON line: the
median and the worst of so many jobs on a worker with warm hosts, of one after its hosts were killed, of one
on a worker without warm hosts, and the median of a second step, which is what the first one computes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from nss_train.contract import TRAIN_STEP
from tasks.app import connect_redis
from tasks.client import Client
from tasks.execution.progress import stream_key
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment

MODELS = Path(".nss-train/models")
STEP_S = 300.0
ROWS = 30
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""A program that computes until whoever started it is gone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int)
    parser.add_argument("--model", type=Path, default=MODELS / "SmolLM2-tiny")
    parser.add_argument("--beside", type=int, default=0, help="processes that compute all the time")
    given = parser.parse_args()
    if not given.model.is_dir():
        parser.error(f"{given.model} is not the folder of a model")
    with (
        tempfile.TemporaryDirectory() as name,
        Valkey(_made(Path(name) / "valkey")) as valkey,
        neighbours(given.beside),
    ):
        folder, model = Path(name), given.model.absolute()
        table = folder / "table.csv"
        table.write_text("name,size\n" + "".join(f"bird {i % 5},{i}\n" for i in range(ROWS)))
        settings = Settings.model_validate({"home": folder / "home", "broker_url": valkey.url})
        jobs = Jobs(settings, table, model)
        with worker(settings.model_copy(update={"warm_hosts": "never"}), folder):
            jobs.first_step_s()  # prepares the model
            cold_s = jobs.first_step_s()
        with worker(settings, folder) as process:
            jobs.first_step_s()  # waits for the imports of the hosts
            warm = [jobs.first_step_s() for _ in range(given.jobs)]
            kill_hosts(process)
            killed_s = jobs.first_step_s()
            healed_s = jobs.first_step_s()
    print(
        json.dumps(
            {
                "warm_median_s": round(statistics.median(warm), 3),
                "warm_worst_s": round(max(warm), 3),
                "cold_s": round(cold_s, 3),
                "killed_s": round(killed_s, 3),
                "healed_s": round(healed_s, 3),
                "step_s": round(statistics.median(jobs.second_steps_s), 3),
            }
        )
    )


@contextmanager
def worker(settings: Settings, folder: Path) -> Iterator[psutil.Process]:
    """Run a worker for all stages."""
    command = [sys.executable, "-m", "tasks.worker", "--queues", "cpu,cuda", "--name", "one@localhost"]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, env=worker_environment(settings), stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Run processes that want a core each, as other programs of the machine may."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", BUSY])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def kill_hosts(worker: psutil.Process) -> None:
    """Kill the warm hosts below a worker, as the kernel does when memory runs out."""
    for process in worker.children(recursive=True):
        if "nss_train.host" in process.cmdline():
            process.kill()


class Jobs:
    """Small trainings, one after another."""

    def __init__(self, settings: Settings, table: Path, model: Path) -> None:
        self._client, self._redis = Client(settings), connect_redis(settings)
        self.second_steps_s = list[float]()
        self._table = table
        self._config: dict[str, Any] = {
            "training": {
                "pretrained_model": str(model),
                "num_input_records_to_sample": ROWS,
                "gradient_accumulation_steps": 1,
            },
            "data": {"holdout": 0},
            "preflight": {"disabled_checks": ["dataset.size"]},
        }

    def first_step_s(self) -> float:
        """Return the seconds until the first step of a new job, which then runs to its end."""
        began = time.monotonic()
        job_id = self._client.submit(table=self._table, config=self._config, seed=1)
        steps = self._times_of_steps(job_id)
        first = next(steps)
        self.second_steps_s.append(next(steps) - first)
        *_, last = self._client.watch(job_id, timeout_s=STEP_S)
        if last.state != "succeeded":
            raise RuntimeError(f"{job_id} is {last.state}")
        return first - began

    def _times_of_steps(self, job_id: str) -> Iterator[float]:
        deadline, after = time.monotonic() + STEP_S, "0"
        while time.monotonic() < deadline:
            for _, entries in self._redis.xread({stream_key(job_id): after}, block=1000):
                for after, fields in entries:  # noqa: B007
                    if json.loads(fields[b"event"])["action"] == TRAIN_STEP:
                        yield time.monotonic()
        raise TimeoutError(f"{job_id} took no two steps within {STEP_S:g} s")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
