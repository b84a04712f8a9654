"""Rehearsal of ``docs/operations.md`` beside the alerts: ``python -m tests.rehearsals.daily``.

It runs Valkey, a folder as the store, real workers and trainings of a small model. For each section it
prints what was done, the commands, and their output. Exit code 1 when one of its promises did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nss_train.contract import Stage
from tasks.app import connect_redis
from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.jobs.keys import Keys
from tasks.jobs.repository import JobRepository
from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store

REPOSITORY = Path(__file__).parents[2]
HEALTHCHECK = REPOSITORY / "deploy" / "healthcheck.sh"
WAIT_S = 240.0
BATCH, RECORDS = 4, 3
"""Examples per step, and records per example."""
LINES = 14
"""Maximum lines shown of a command's output."""


@dataclass(kw_only=True)
class Deployment:
    """The running servers, and the commands that an operator gives."""

    settings: Settings
    folder: Path
    model: Path
    table: Path
    broken: list[str] = field(default_factory=list)
    """Promises that did not hold."""

    @property
    def client(self) -> Client:
        return Client(self.settings)

    def records(self, job_id: str) -> JobRepository:
        return JobRepository(open_store(self.settings), job_id)

    def run(self, *words: str | Path) -> str:
        """Run a command with this deployment's settings; show it with its output, and return its stdout."""
        environment = worker_environment(self.settings) | {"COLUMNS": "150", "NO_COLOR": "1"}
        shown = ["nss-train" if words[0] == "nss-train" else str(words[0]), *map(str, words[1:])]
        print(f"$ {' '.join(shown)}".replace(f"{REPOSITORY}/", "").replace(str(self.folder), "DIR"))
        command = [sys.executable, "-m", "tasks.cli", *words[1:]] if words[0] == "nss-train" else [*words]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=WAIT_S
        )
        lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        for line in [*lines[:LINES], *(["…"] if len(lines) > LINES else [])]:
            print(f"  {line}".replace(str(self.folder), "DIR"))
        print(f"  (exit code {done.returncode})")
        return done.stdout

    def submit(self, *options: str, steps: int = 2) -> str:
        """Submit a job of about this many steps with the command, and return its id."""
        config = self.folder / f"{steps}.json"
        config.write_text(json.dumps(self.config(steps)))
        return self.run("nss-train", "submit", self.table, "--config", config, *options).split()[-1]

    def config(self, steps: int) -> dict[str, Any]:
        training = {
            "pretrained_model": str(self.model),
            "num_input_records_to_sample": steps * BATCH * RECORDS,
            "gradient_accumulation_steps": BATCH,
            "learning_rate": 0.01,
            "lora_r": 4,
        }
        sections = {"data": {"holdout": 0, "random_state": 1, "max_sequences_per_example": RECORDS}}
        return {"training": training, "preflight": {"disabled_checks": ["dataset.size"]}} | sections

    @contextmanager
    def worker(
        self, *options: str, name: str = "cpu", queues: str = "cpu,cuda"
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker, and end it afterwards."""
        shown = f"nss-train worker --queues {queues} --name {name}@%h {' '.join(options)}".strip()
        print(f"$ {shown} &")
        mine = self.settings.model_copy(update={"home": self.folder / name})
        command = [sys.executable, "-m", "tasks.cli", *shown.split()[1:]]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=worker_environment(mine), stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(WAIT_S)

    def wait_for_step(self, job_id: str, step: int) -> None:
        wait_until(lambda: self.step(job_id) >= step)

    def step(self, job_id: str) -> int:
        train = next(one for one in self.client.status(job_id).stages if one.stage is Stage.TRAIN)
        return int((train.progress or {}).get("step", 0))

    def end(self, job_id: str) -> JobState:
        *_, last = self.client.watch(job_id, timeout_s=WAIT_S)
        return last.state

    def promise(self, what: str, *, held: bool) -> None:
        print(f"  {'held' if held else 'BROKEN'}: {what}")
        if not held:
            self.broken.append(what)


def scaling_in(here: Deployment) -> None:
    job_id = here.submit(steps=40)
    with here.worker() as leaving:
        here.wait_for_step(job_id, 5)
        began = time.monotonic()
        leaving.terminate()
        code = leaving.wait(WAIT_S)
        print(f"  SIGTERM: exit code {code} after {time.monotonic() - began:.1f} s")
    with here.worker(name="other"):
        here.promise("the job succeeds with another worker", held=here.end(job_id) is JobState.SUCCEEDED)
    records = here.records(job_id)
    ends = {ending.attempt: str(ending.kind) for ending in records.endings(Stage.TRAIN)}
    claims = [
        f"{one.attempt} by {one.worker} from step {one.position}" for one in records.claims(Stage.TRAIN)
    ]
    print(f"  train: {'; '.join(claims)}; ends: {ends}")
    here.promise("the first attempt ended as drained", held=ends == {1: "drained"})
    here.run("nss-train", "status", job_id)


def scaling_out(here: Deployment) -> None:
    (port,) = free_ports(1)
    print(f"$ nss-train metrics --port {port} &")
    command = [sys.executable, "-m", "tasks.cli", "metrics", "--port", str(port)]
    with subprocess.Popen(command, env=worker_environment(here.settings)) as exporter:
        try:
            job_id = here.submit()
            with here.worker("--max-jobs", "1", "--idle-exit-s", "30") as pod:
                code = pod.wait(WAIT_S)
            here.promise("a pod for one stage leaves with exit code 0", held=code == 0)
            here.run("curl", "--silent", f"http://127.0.0.1:{port}/scale")
            with here.worker("--idle-exit-s", "5", name="idle") as pod:
                here.promise("the next pod ends the job", held=here.end(job_id) is JobState.SUCCEEDED)
                here.promise("idle, it leaves with exit code 0", held=pod.wait(WAIT_S) == 0)
            here.run("curl", "--silent", f"http://127.0.0.1:{port}/metrics")
        finally:
            exporter.terminate()


def who_is_first(here: Deployment) -> None:
    with here.worker(queues="cpu"), here.worker(queues="cuda", name="cuda"):
        config = here.config(steps=20)
        many = [here.client.submit(table=here.table, config=config, tenant="a") for _ in range(20)]
        print(f"  {len(many)} jobs of tenant a")
        here.end(many[0])
        job_id = here.submit("--tenant", "b", "--priority", "1")
        wait_until(lambda: here.client.status(job_id).place is not None)
        here.run("nss-train", "status", many[-1])
        here.run("nss-train", "status", job_id)
        first, last = (here.client.status(one).place for one in (job_id, many[-1]))
        before = "fewer jobs begin before the newcomer's"
        here.promise(before, held=first is None or (last is not None and first.ahead < last.ahead))
        for one in many:
            here.client.cancel(one, reason="a rehearsal", requested_by="an operator")
        here.promise("it succeeds", held=here.end(job_id) is JobState.SUCCEEDED)


def heartbeat(here: Deployment) -> None:
    with here.worker() as worker:
        beat = here.folder / "cpu" / "heartbeats" / f"cpu@{platform.node()}"
        wait_until(beat.exists)
        check = ["env", f"NSS_TRAIN_HOME={here.folder / 'cpu'}", str(HEALTHCHECK), "1", "cpu"]
        here.run(*check)
        os.killpg(worker.pid, signal.SIGSTOP)
        print("  the worker is stopped for 75 s")
        time.sleep(75)
        here.run(*check)
        here.promise("a worker that hangs stops beating", held=time.time() - beat.stat().st_mtime > 60)
        os.killpg(worker.pid, signal.SIGCONT)
    here.promise("one that leaves in good order removes its file", held=not beat.exists())


def checkpoints(here: Deployment) -> None:
    job_id = here.submit(steps=40)
    with here.worker() as worker:
        here.wait_for_step(job_id, 8)
        kept = sorted(open_store(here.settings).list(Keys(job_id).checkpoints))
        print("  in the store:", *(key.removeprefix(f"jobs/{job_id}/") for key in kept[-6:]), sep="\n    ")
        os.killpg(worker.pid, signal.SIGKILL)
        print("  the worker and all its processes are killed")
    with here.worker(name="other"):
        here.promise("the job succeeds", held=here.end(job_id) is JobState.SUCCEEDED)
    claims = here.records(job_id).claims(Stage.TRAIN)
    print("  train:", *(f"attempt {one.attempt} from step {one.position}" for one in claims), sep="\n    ")
    here.promise("it went on from a checkpoint", held=claims[-1].position >= 5)


def several_processes(here: Deployment) -> None:
    job_id = here.submit("--ranks", "2", steps=4)
    with here.worker():
        here.promise("the job succeeds", held=here.end(job_id) is JobState.SUCCEEDED)
    marker = here.records(job_id).marker(Stage.TRAIN)
    ranks = None if marker is None else marker.figures.get("ranks")
    here.promise(f"two processes trained it ({ranks})", held=ranks == 2)
    here.run("nss-train", "submit", here.table, "--ranks", "3")


def cancelling(here: Deployment) -> None:
    queued = here.submit()
    here.run("nss-train", "cancel", queued, "--reason", "a rehearsal")
    running = here.submit(steps=200)
    with here.worker():
        here.wait_for_step(running, 3)
        began = time.monotonic()
        here.run("nss-train", "cancel", running, "--reason", "a rehearsal")
        here.promise(
            "both are cancelled", held={here.end(one) for one in (queued, running)} == {JobState.CANCELLED}
        )
        print(f"  the running one after {time.monotonic() - began:.1f} s")
    print(f"  outcome.json: {open_store(here.settings).read(Keys(running).outcome).decode().split()}")


def reconcile(here: Deployment) -> None:
    job_id = here.submit()
    connect_redis(here.settings).flushall()
    print("  FLUSHALL")
    time.sleep(1)
    here.run("nss-train", "reconcile")
    time.sleep(here.settings.lease_ttl_s)
    here.run("nss-train", "reconcile")
    with here.worker():
        here.promise("the job succeeds", held=here.end(job_id) is JobState.SUCCEEDED)


SECTIONS: dict[str, Callable[[Deployment], None]] = {
    "Scaling in": scaling_in,
    "Scaling out": scaling_out,
    "Who is first": who_is_first,
    "Heartbeat": heartbeat,
    "Checkpoints": checkpoints,
    "Several processes": several_processes,
    "Cancelling": cancelling,
    "Reconcile": reconcile,
}


def wait_until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"among {', '.join(SECTIONS)}; all")
    parser.add_argument("--model", type=Path, required=True)
    given = parser.parse_args()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="daily-")))
        (folder / "valkey").mkdir()
        valkey = running.enter_context(Valkey(folder / "valkey"))
        times = {"lease_ttl_s": 10.0, "reconcile_every_s": 5.0, "checkpoint_every_steps": 1}
        places = {"home": folder / "home", "store_url": (folder / "store").as_uri()}
        settings = Settings.model_validate({"broker_url": valkey.url} | places | times)
        table = folder / "birds.csv"
        rows = [f"{'Adelie' if i % 3 else 'Gentoo'},{35 + i / 10},{3000 + 25 * i}" for i in range(60)]
        table.write_text("species,bill_length_mm,body_mass_g\n" + "\n".join(rows) + "\n")
        here = Deployment(settings=settings, folder=folder, model=given.model.absolute(), table=table)
        for name in given.sections or SECTIONS:
            print(f"\n## {name}", flush=True)
            SECTIONS[name](here)
    print(f"\n{len(here.broken)} promises broken: {here.broken}")
    return 1 if here.broken else 0


if __name__ == "__main__":
    sys.exit(main())
