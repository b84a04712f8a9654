"""Rehearsal of each alert, by its real cause and its runbook: ``python -m tests.rehearsals.alerts``.

It runs Valkey, S3, workers whose stages do nothing or go wrong, the exporter, and Prometheus with the rules
of ``deploy/`` sixty times faster. For each alert it prints what was done, after how many seconds the alert
fired, the output of each query and command of its section of ``docs/operations.md``, and after how many
seconds it cleared once its cause was gone. It needs root (one cause is a mount) and ``prometheus`` on the
PATH. Exit code 1 when an alert did not fire, or did not clear.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nss_train.contract import Stage
from tasks.client import Client
from tasks.jobs.repository import JobRepository
from tasks.local.seaweedfs import SeaweedFS
from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store
from tests.rehearsals.prometheus import Prometheus, prometheus
from tests.rehearsals.runbook import commands_for, rehearse

FIRE_S, GONE_S = 180.0, 180.0
LEASE_S = 4.0
STAGES = "tests.rehearsals.faulty"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(kw_only=True)
class Deployment:
    """The running servers and workers, and how to add to them."""

    settings: Settings
    valkey: Valkey
    s3: SeaweedFS
    folder: Path
    metrics_port: int
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    exporter: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Client:
        return Client(self.settings)

    def start(self, name: str, *, concurrency: int = 1) -> None:
        """Start a worker named QUEUE@HOST, with a home of its own."""
        queue = name.partition("@")[0]
        mine = self.settings.model_copy(update={"home": self.folder / name})
        module = ["benchmarks.noop_app", "--queues", queue, "--name", name, "--stages", STAGES]
        module += ["--concurrency", str(concurrency)]
        self.workers[name] = self._run(module, mine, name)

    def start_exporter(self) -> None:
        module = ["tasks.cli", "metrics", "--port", str(self.metrics_port)]
        self.exporter = self._run(module, self.settings, "exporter")

    def stop_exporter(self) -> None:
        if self.exporter is not None:
            self.exporter.terminate()
            self.exporter.wait(10)
            self.exporter = None

    def stop(self, *names: str) -> None:
        """End workers gracefully."""
        for name in names:
            self.workers[name].terminate()
        for name in names:
            self.workers.pop(name).wait(60)

    def submit(self, kind: str, **options: str) -> str:
        """Submit a job whose training goes wrong in that way."""
        config = {"training": {"pretrained_model": kind}}
        table = self.folder / "table.csv"
        return self.client.submit(table=table, config=config, **options)  # type: ignore[arg-type]

    def end(self, *jobs: str) -> None:
        for job_id in jobs:
            list(self.client.watch(job_id, timeout_s=240))

    def wait_for_training(self, job_id: str) -> str:
        """Wait until the training has begun, and return its worker."""
        records = JobRepository(open_store(self.settings), job_id)
        wait_until(lambda: bool(records.attempts(Stage.TRAIN)), 60)
        time.sleep(1)
        return records.claims(Stage.TRAIN)[-1].worker

    def pool_process(self, worker: str) -> psutil.Process:
        main = psutil.Process(self.workers[worker].pid)
        return next(p for p in main.children() if "benchmarks.noop_app" in p.cmdline())

    def _run(self, module: list[str], settings: Settings, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *module], env=worker_environment(settings), stdout=log, stderr=log
            )


Scene = Callable[[Deployment], Iterator[str]]
"""Function that yields the id of a job to ask about while its cause lasts; the rest of it ends the cause."""


def queue_without_worker(here: Deployment) -> Iterator[str]:
    """the only worker of the queue left, and a training waits"""
    here.stop("cuda@a")
    job_id = here.submit("plain")
    yield job_id
    # The next scene needs a training that has waited.
    time.sleep(60)
    here.start("cuda@a")
    here.end(job_id)


def stages_wait_too_long(here: Deployment) -> Iterator[str]:
    """a training that waited for a minute got its worker"""
    yield here.submit("plain")


def jobs_fail(here: Deployment) -> Iterator[str]:
    """five jobs whose records do not fit the model"""
    jobs = [here.submit("failing") for _ in range(5)]
    here.end(*jobs)
    yield jobs[0]


def retries_for_memory(here: Deployment) -> Iterator[str]:
    """two trainings that run out of memory again and again"""
    jobs = [here.submit("hungry") for _ in range(2)]
    here.end(*jobs)
    yield jobs[0]


def leases_lost(here: Deployment) -> Iterator[str]:
    """five workers were stopped for longer than their leases, others took over, and they woke up"""
    stopped = [f"cuda@stopped{n}" for n in range(4)]
    helping = [f"cuda@helping{n}" for n in range(4)]
    for name in stopped:
        here.start(name)
    jobs = [here.submit("slow") for _ in range(5)]
    busy = [here.wait_for_training(job_id) for job_id in jobs]
    for name in helping:
        here.start(name)
    time.sleep(5)
    pools = [here.pool_process(name) for name in busy]
    for pool in pools:
        pool.suspend()
    store = open_store(here.settings)
    wait_until(lambda: sum(len(JobRepository(store, j).attempts(Stage.TRAIN)) > 1 for j in jobs) >= 4, 60)
    for pool in pools:
        pool.resume()
    yield jobs[0]
    here.end(*jobs)
    here.stop(*stopped, *helping)


def redeliveries(here: Deployment) -> Iterator[str]:
    """a worker with a dozen trainings was killed, and another got its messages"""
    killed, helping = "cuda@killed", "cuda@helping"
    here.stop("cuda@a")
    here.start(killed, concurrency=12)
    jobs = [here.submit("slow") for _ in range(12)]
    for job_id in jobs:
        here.wait_for_training(job_id)
    here.workers[killed].kill()
    here.workers.pop(killed).wait(10)
    here.start(helping, concurrency=12)
    yield jobs[0]
    here.end(*jobs)
    here.stop(helping)
    here.start("cuda@a")


def stage_stuck(here: Deployment) -> Iterator[str]:
    """a training neither steps nor ends"""
    job_id = here.submit("stuck")
    yield job_id
    here.client.cancel(job_id, reason="rehearsal", requested_by="operator")
    here.end(job_id)


def teardown_leaks(here: Deployment) -> Iterator[str]:
    """a training left a mount in its folder, so that it could not be removed"""
    job_id = here.submit("leaky")
    here.workers["cuda@a"].wait(120)
    yield job_id
    for mount in (here.folder / "cuda@a").rglob("mount"):
        subprocess.run(["umount", str(mount)], check=True)
    here.start("cuda@a")


def webhooks_fail(here: Deployment) -> Iterator[str]:
    """nobody listens where three jobs want to be told of their end"""
    (port,) = free_ports(1)
    jobs = [here.submit("plain", webhook=f"http://127.0.0.1:{port}/ended") for _ in range(3)]
    here.end(*jobs)
    yield jobs[0]


def store_down(here: Deployment) -> Iterator[str]:
    """the S3 server was stopped"""
    here.s3.stop()
    yield "20260101-000000-00000000"
    here.s3.start()


def broker_down(here: Deployment) -> Iterator[str]:
    """Redis was stopped"""
    here.valkey.stop()
    yield "20260101-000000-00000000"
    here.valkey.start()


def exporter_absent(here: Deployment) -> Iterator[str]:
    """the exporter was stopped"""
    here.stop_exporter()
    yield "20260101-000000-00000000"
    here.start_exporter()


SCENES: dict[str, Scene] = {
    "QueueWithoutWorker": queue_without_worker,
    "StagesWaitTooLong": stages_wait_too_long,
    "JobsFail": jobs_fail,
    "RetriesForMemory": retries_for_memory,
    "WebhooksFail": webhooks_fail,
    "LeasesLost": leases_lost,
    "Redeliveries": redeliveries,
    "TeardownLeaks": teardown_leaks,
    "StageStuck": stage_stuck,
    "StoreDown": store_down,
    "BrokerDown": broker_down,
    "ExporterAbsent": exporter_absent,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("alerts", nargs="*", default=list(SCENES), help="all of them")
    alerts = parser.parse_args().alerts
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="alerts-")))
        here = running.enter_context(deployment(folder))
        watching = running.enter_context(prometheus(folder / "prometheus", f"127.0.0.1:{here.metrics_port}"))
        here.end(here.submit("plain"))
        played = [play(alert, here, watching) for alert in alerts]
    return 0 if all(played) else 1


def play(alert: str, here: Deployment, watching: Prometheus) -> bool:
    scene = SCENES[alert]
    print(f"\n## {alert}\n\nCause: {scene.__doc__}.", flush=True)
    started = time.monotonic()
    acts = scene(here)
    job_id = next(acts)
    fired = wait_until(lambda: watching.fires(alert), FIRE_S)
    print(f"{'Fired' if fired else 'DID NOT FIRE'} after {time.monotonic() - started:.0f} s.\n")
    for span in commands_for(alert):
        print(f"    $ {span}")
        for line in rehearse(span, job_id=job_id, settings=here.settings, prometheus=watching):
            print(f"    {line}")
    next(acts, None)
    mended = time.monotonic()
    gone = wait_until(lambda: not watching.fires(alert), GONE_S)
    print(
        f"\n{'Gone' if gone else 'DID NOT GO'} {time.monotonic() - mended:.0f} s after the cause.", flush=True
    )
    return fired and gone


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    (folder / "table.csv").write_text("a,b\n" + "".join(f"{i},{i}\n" for i in range(10)))
    (port,) = free_ports(1)
    with Valkey(folder / "valkey", append_only=True) as valkey, SeaweedFS(folder / "s3") as s3:
        settings = Settings.model_validate(
            {
                "home": folder / "home",
                "broker_url": valkey.url,
                **s3.settings,
                "lease_ttl_s": LEASE_S,
                "reconcile_every_s": 2.0,
                "visibility_timeout_s": 10.0,
                "webhook_hosts": ["127.0.0.1"],
                "webhook_secret": SECRET,
                "webhook_http": True,
                "webhook_networks": ["127.0.0.0/8"],
                "webhook_attempts": 3,
                "webhook_backoff_s": 1.0,
            }
        )
        here = Deployment(settings=settings, valkey=valkey, s3=s3, folder=folder, metrics_port=port)
        try:
            here.start("cpu@a")
            here.start("cuda@a")
            here.start_exporter()
            yield here
        finally:
            here.stop_exporter()
            for process in here.workers.values():
                process.kill()
                process.wait(10)


def wait_until(happened: Callable[[], bool], deadline_s: float) -> bool:
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
