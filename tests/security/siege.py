"""A worker under hostile messages, honest submissions among them: ``python -m tests.security.siege``.

It measures how long an honest submission waits for its answer alone, and how long among the others, on a
real Valkey with a real worker. The answer is the refusal of a table outside the operator's prefixes, which
takes the whole way: queue, door, pool, parsing, store. With ``--jobs`` it is the adapter of a small job.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tasks.app import App, connect_redis, make_app
from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.jobs.ids import id_of_key
from tasks.jobs.keys import Keys
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tests.pipeline.conftest import worker
from tests.security import hostile

ALONE, JOBS_ALONE = 500, 40
"""Answers without a siege, for the median and the slowest: a shared machine has rare slow ones of its own."""
MODEL = Path(".nss-train/models/SmolLM2-tiny")
ROWS = 30
WARMING = 8
"""Jobs after which each process of the pool has its warm hosts, and the model is prepared."""
DEADLINE_S = 120.0
REST_S = 3.0
REST_SHARE = 0.1
"""Share of one core that a worker at rest takes at most."""
RATIO = 1.5
"""Maximum of the slowest answer under siege, in medians alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Siege:
    """The measurements of a siege."""

    messages: int
    alone_s: tuple[float, ...]
    besieged_s: tuple[float, ...]
    unacked: int
    waiting: int

    @property
    def median_s(self) -> float:
        return statistics.median(self.alone_s)

    @property
    def ratio(self) -> float:
        return max(self.besieged_s) / self.median_s

    @property
    def holds(self) -> bool:
        """Tell whether no honest sender waited much longer, and nothing is left."""
        return self.ratio <= RATIO and not self.unacked and not self.waiting

    def __str__(self) -> str:
        return (
            f"{self.messages} hostile messages of {len(hostile.KINDS)} kinds,"
            f" all {len(self.besieged_s)} honest submissions among them answered\n"
            f"alone: median {self.median_s:.3f} s, slowest {max(self.alone_s):.3f} s"
            f" = {max(self.alone_s) / self.median_s:.2f} medians, of {len(self.alone_s)}\n"
            f"under siege: median {statistics.median(self.besieged_s):.3f} s,"
            f" slowest {max(self.besieged_s):.3f} s = {self.ratio:.2f} medians alone\n"
            f"left in unacked: {self.unacked}, waiting: {self.waiting}"
        )


Honest = Callable[[App], float]
"""An honest sender, who returns the seconds until the answer."""


def besiege(
    app: App, *, messages: int, per_s: float, alone: int = ALONE, seed: int = 1, honest: Honest | None = None
) -> Siege:
    """Send hostile messages at a steady pace, and meanwhile one honest submission after the other."""
    honest = honest or refused_s
    alone_s = tuple(honest(app) for _ in range(alone))
    lines = [line for _, line in hostile.lines(messages, seed=seed)]
    # In a process of its own: a thread would share the measuring one's interpreter lock.
    sender = multiprocessing.get_context("fork").Process(
        target=_send, args=(app.settings, lines, 1 / per_s), daemon=True
    )
    sender.start()
    times = list[float]()
    while sender.is_alive():
        times.append(honest(app))
    honest(app)
    _wait_for_acknowledgements(app)
    return Siege(
        messages=messages,
        alone_s=alone_s,
        besieged_s=tuple(times),
        unacked=int(app.redis.hlen("unacked")) + int(app.redis.zcard("unacked_index")),
        waiting=int(app.redis.llen(app.settings.queue_cpu)),
    )


def _send(settings: Settings, lines: list[bytes], pause_s: float) -> None:
    redis = connect_redis(settings)
    for line in lines:
        redis.lpush(settings.queue_cpu, line)
        time.sleep(pause_s)


def _wait_for_acknowledgements(app: App) -> None:
    deadline = time.monotonic() + 5
    while app.redis.hlen("unacked") and time.monotonic() < deadline:
        time.sleep(0.02)


def refused_s(app: App) -> float:
    """Return the seconds until an honest submission is refused for a mistake."""
    key, began = uuid.uuid4().hex, time.monotonic()
    message = {"table": "s3://elsewhere/x.csv", "config": {}, "idempotency_key": key}
    app.send_task("nss_train.submit", kwargs=message)
    _wait_for_outcome(app, id_of_key(key), began)
    return time.monotonic() - began


def _wait_for_outcome(app: App, job_id: str, began: float) -> None:
    while not app.store.exists(Keys(job_id).outcome):
        if time.monotonic() - began > DEADLINE_S:
            raise TimeoutError("an honest submission was not answered")
        time.sleep(0.002)


class Jobs:
    """An honest sender of small trainings, who waits for each adapter."""

    def __init__(self, folder: Path) -> None:
        self._table = folder / "birds.csv"
        self._table.write_text("name,size\n" + "".join(f"bird {i % 5},{i}\n" for i in range(ROWS)))
        self._config: dict[str, Any] = {
            "training": {
                "pretrained_model": str(MODEL.absolute()),
                "num_input_records_to_sample": ROWS,
                "gradient_accumulation_steps": 1,
            },
            "data": {"holdout": 0},
            "preflight": {"disabled_checks": ["dataset.size"]},
        }

    def __call__(self, app: App) -> float:
        """Return the seconds until a job has its adapter."""
        client, began = Client(app.settings), time.monotonic()
        job_id = client.submit(table=self._table, config=self._config, seed=1)
        _wait_for_outcome(app, job_id, began)
        passed_s = time.monotonic() - began
        last = client.status(job_id)
        if last.state is not JobState.SUCCEEDED:
            raise RuntimeError(f"the honest job {job_id} is {last.state}: {last.error}")
        return passed_s


@contextmanager
def deployment(
    folder: Path, concurrency: int, *, warm_hosts: str = "ahead", queues: str = "cpu"
) -> Iterator[App]:
    """Run a warm worker for some queues on a Valkey of its own."""
    (folder / "valkey").mkdir()
    with Valkey(folder / "valkey") as valkey:
        settings = Settings.model_validate(
            {"home": folder / "home", "broker_url": valkey.url, "reconcile_every_s": 0}
            | {"warm_hosts": warm_hosts}
        )
        options = ("--concurrency", str(concurrency))
        with worker(settings, queues, folder / "worker.log", *options) as process:
            app = make_app(settings)
            for _ in range(3 * concurrency):
                refused_s(app)
            _wait_for_rest(psutil.Process(process.pid))
            yield app


def _wait_for_rest(process: psutil.Process) -> None:
    """Wait until the worker's warm hosts have their imports, which take the cores from the answers."""
    deadline = time.monotonic() + DEADLINE_S
    spent_s = _spent_s(process)
    while True:
        time.sleep(REST_S)
        before_s, spent_s = spent_s, _spent_s(process)
        if spent_s - before_s < REST_SHARE * REST_S:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the worker does not come to rest")


def _spent_s(process: psutil.Process) -> float:
    """Return the processor time of a process and its descendants."""
    spent_s = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            times = one.cpu_times()
            spent_s += times.user + times.system
    return spent_s


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.siege", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000)
    parser.add_argument("--per-s", type=float, default=25.0, help="hostile messages in a second")
    parser.add_argument("--concurrency", type=int, default=4, help="processes of the worker's pool")
    parser.add_argument("--jobs", action="store_true", help="honest senders wait for an adapter")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    queues = "cpu,cuda" if given.jobs else "cpu"
    with (
        tempfile.TemporaryDirectory() as name,
        deployment(Path(name), given.concurrency, queues=queues) as app,
    ):
        found = _besieged(app, given, Jobs(Path(name)) if given.jobs else None)
    print(found)  # noqa: T201 (a program)
    return 0 if found.holds else 1


def _besieged(app: App, given: argparse.Namespace, jobs: Jobs | None) -> Siege:
    if jobs is not None:
        for _ in range(WARMING):
            jobs(app)
    return besiege(
        app,
        messages=given.messages,
        per_s=given.per_s,
        alone=ALONE if jobs is None else JOBS_ALONE,
        seed=given.seed,
        honest=jobs,
    )


if __name__ == "__main__":
    sys.exit(main())
