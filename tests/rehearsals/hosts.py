"""Workers on hosts of their own whose link to broker and store is cut: ``python -m tests.rehearsals.hosts``.

It needs root: each host is a network namespace on a bridge. Broker and store are on one, two workers on two
others. It runs four trainings of the same job: undisturbed; with the link of the services cut for a minute;
with the link of the training worker cut for a minute, so that the other one takes over; with that of the
other one cut. It prints one JSON object for each; exit code 1 unless each succeeds once, with the bytes of
the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nss_train.contract import Stage
from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.jobs.repository import JobRepository
from tasks.local.seaweedfs import SeaweedFS
from tasks.local.valkey import Valkey
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store

BRIDGE, NETWORK = "nss0", "10.77.0"
SERVICES, WORKERS = "services", ("one", "two")
CUT_S = 60.0
LEASE_S = 20.0
STEPS = 120
"""Number of steps that is enough for a training to outlive the cut."""
JOB_S = 600.0


class Host:
    """A network namespace with an address on the bridge."""

    def __init__(self, name: str, number: int) -> None:
        self.name = f"nss-{name}"
        self.address = f"{NETWORK}.{number}"
        self._port = f"nss-{number}"

    @property
    def inside(self) -> list[str]:
        """Return the words that run a command on this host."""
        return ["/usr/sbin/ip", "netns", "exec", self.name]

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self._port, "master", BRIDGE, "up")
        for command in (["addr", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            ip("-n", self.name, *command)
        ip("-n", self.name, "link", "set", "lo", "up")

    def remove(self) -> None:
        ip("netns", "delete", self.name)

    def cut(self) -> None:
        ip("link", "set", self._port, "down")

    def mend(self) -> None:
        ip("link", "set", self._port, "up")


class RemoteValkey(Valkey):
    """A Valkey on a host."""

    def __init__(self, folder: Path, host: Host) -> None:
        super().__init__(folder, host=host.address)
        self._inside = host.inside

    def _command(self) -> list[str]:
        return [*self._inside, *super()._command()]


class RemoteSeaweedFS(SeaweedFS):
    """A SeaweedFS on a host."""

    def __init__(self, folder: Path, host: Host) -> None:
        super().__init__(folder, host=host.address)
        self._inside = host.inside

    def _command(self) -> list[str]:
        return [*self._inside, *super()._command()]


class Rehearsal:
    """A deployment on three hosts, and the jobs that run on it."""

    def __init__(self, settings: Settings, hosts: dict[str, Host], table: Path, model: Path) -> None:
        self._client = Client(settings)
        self._settings = settings
        self._hosts = hosts
        self._table = table
        self._model = model

    def play(self, whose: str) -> dict[str, Any]:
        """Train; cut the link of ``services``, the ``training`` worker, the ``other`` one, or ``nobody``."""
        job_id = self._submit()
        self._wait_for_training(job_id)
        trains = self._worker_of(job_id)
        host = {"services": SERVICES, "training": trains, "other": other(trains)}.get(whose)
        started = time.monotonic()
        if host is not None:
            self._hosts[host].cut()
            time.sleep(CUT_S)
            self._hosts[host].mend()
        *_, status = self._client.watch(job_id, timeout_s=JOB_S)
        return {
            "link cut": whose,
            "state": status.state,
            "train": self._history(job_id),
            "ended_after_s": round(time.monotonic() - started),
            "adapter": self._adapter(job_id),
        }

    def _submit(self) -> str:
        config = {
            "data": {"holdout": 0, "random_state": 1, "max_sequences_per_example": 3},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "training": {
                "pretrained_model": str(self._model),
                "num_input_records_to_sample": STEPS * 4 * 3,
                "gradient_accumulation_steps": 4,
                "learning_rate": 0.01,
                "lora_r": 4,
            },
        }
        return self._client.submit(table=self._table, config=config, seed=5)

    def _wait_for_training(self, job_id: str) -> None:
        deadline = time.monotonic() + JOB_S
        while self._step(job_id) < 5:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} does not train")
            time.sleep(0.5)

    def _step(self, job_id: str) -> int:
        train = next(one for one in self._client.status(job_id).stages if one.stage is Stage.TRAIN)
        return int((train.progress or {}).get("step", 0))

    def _worker_of(self, job_id: str) -> str:
        worker = JobRepository(open_store(self._settings), job_id).claims(Stage.TRAIN)[-1].worker
        return worker.partition("@")[0]

    def _history(self, job_id: str) -> list[str]:
        """Return which worker had each attempt of the stage, and how the attempt ended."""
        records = JobRepository(open_store(self._settings), job_id)
        endings = {ending.attempt: str(ending.kind) for ending in records.endings(Stage.TRAIN)}
        marker = records.marker(Stage.TRAIN)
        committed = None if marker is None else marker.attempt
        return [
            f"{claim.attempt} by {claim.worker} from step {claim.position}: "
            + ("committed" if claim.attempt == committed else endings.get(claim.attempt, "no word"))
            for claim in records.claims(Stage.TRAIN)
        ]

    def _adapter(self, job_id: str) -> str:
        marker = JobRepository(open_store(self._settings), job_id).marker(Stage.TRAIN)
        files = [] if marker is None else marker.files
        return next((file.sha256 for file in files if file.path.endswith("adapter_model.safetensors")), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    model = parser.parse_args().model.absolute()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="hosts-")))
        hosts = running.enter_context(network([SERVICES, *WORKERS]))
        settings = running.enter_context(services(folder, hosts[SERVICES]))
        for name in WORKERS:
            running.enter_context(worker(settings, name, hosts[name], folder))
        table = folder / "birds.csv"
        rows = [f"{'Adelie' if i % 3 else 'Gentoo'},{35 + i / 10},{3000 + 25 * i}" for i in range(60)]
        table.write_text("species,bill_length_mm,body_mass_g\n" + "\n".join(rows) + "\n")
        rehearsal = Rehearsal(settings, hosts, table, model)
        found = []
        for whose in ("nobody", "services", "training", "other"):
            found.append(rehearsal.play(whose))
            print(json.dumps(found[-1]), flush=True)
    same = len({one["adapter"] for one in found}) == 1 and found[0]["adapter"]
    return 0 if same and all(one["state"] == JobState.SUCCEEDED for one in found) else 1


@contextmanager
def network(names: list[str]) -> Iterator[dict[str, Host]]:
    ip("link", "add", BRIDGE, "type", "bridge")
    with ExitStack() as made:
        made.callback(ip, "link", "delete", BRIDGE)
        ip("addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        hosts = {}
        for number, name in enumerate(names, start=1):
            hosts[name] = Host(name, number)
            made.callback(hosts[name].remove)
            hosts[name].make()
        yield hosts


@contextmanager
def services(folder: Path, host: Host) -> Iterator[Settings]:
    with RemoteValkey(folder / "valkey", host) as valkey, RemoteSeaweedFS(folder / "s3", host) as s3:
        yield Settings.model_validate(
            {
                "home": folder / "home",
                "broker_url": valkey.url,
                **s3.settings,
                "lease_ttl_s": LEASE_S,
                "reconcile_every_s": 5.0,
                "visibility_timeout_s": 40.0,
                "checkpoint_every_steps": 10,
            }
        )


@contextmanager
def worker(settings: Settings, name: str, host: Host, folder: Path) -> Iterator[None]:
    mine = settings.model_copy(update={"home": folder / name})
    command = [sys.executable, "-m", "tasks.worker", "--queues", "cpu,cuda", "--name", f"{name}@rehearsal"]
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(
            [*host.inside, *command], env=worker_environment(mine), stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def other(worker: str) -> str:
    return next(name for name in WORKERS if name != worker)


def ip(*arguments: str) -> None:
    subprocess.run(["/usr/sbin/ip", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
