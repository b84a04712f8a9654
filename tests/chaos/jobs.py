"""Jobs on a cluster, and what can be seen of them while they run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minio import Minio
from redis import Redis

from nss_train.contract import Stage
from nss_train.errors import StoreUnavailable
from tasks.broker import queues
from tasks.client import Client
from tasks.jobs.documents import AttemptEnd, Claim
from tasks.jobs.repository import JobRepository
from tasks.status import JobStatus
from tasks.store.open import open_store
from tests.chaos.auditor import Auditor
from tests.chaos.cluster import TIMINGS, Cluster, WorkerHost, wait_until

WAIT_S = 240.0
BATCH, RECORDS = 4, 3
"""Examples per step, and records per example."""


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a job."""

    status: JobStatus
    adapter: str
    """SHA-256 of the adapter, empty when there is none."""
    steps: list[tuple[int, int]]
    """Attempt and number of every optimizer step that was reported, in order."""


class Jobs:
    """A client of the cluster that knows where to look."""

    def __init__(self, cluster: Cluster, model: Path) -> None:
        self.cluster = cluster
        self.client = Client(cluster.settings)
        self._model = model
        self._table = cluster.folder / "birds.csv"
        rows = [f"{'Adelie' if i % 3 else 'Gentoo'},{35 + i / 10},{3000 + 25 * i}" for i in range(60)]
        self._table.write_text("species,bill_length_mm,body_mass_g\n" + "\n".join(rows) + "\n")

    def submit(self, *, steps: int, sections: dict[str, Any] | None = None, **options: Any) -> str:
        """Submit a job of about this many optimizer steps; ``sections`` are added to the usual config."""
        config = {
            "data": {"holdout": 0, "random_state": 1, "max_sequences_per_example": RECORDS},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "training": {
                "pretrained_model": str(self._model),
                "num_input_records_to_sample": steps * BATCH * RECORDS,
                "gradient_accumulation_steps": BATCH,
                "learning_rate": 0.01,
                "lora_r": 4,
            },
            **(sections or {}),
        }
        given = {"seed": 5} | options
        return self._patiently(lambda: self.client.submit(table=self._table, config=config, **given), given)

    @staticmethod
    def _patiently(submit: Callable[[], str], given: Mapping[str, Any]) -> str:
        """Submit; with an idempotency key, retry while the store is unreachable, as a client would."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return submit()
            except StoreUnavailable:
                if "idempotency_key" not in given or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def end(self, job_id: str, timeout_s: float = WAIT_S) -> End:
        *_, status = self.client.watch(job_id, timeout_s=timeout_s)
        return End(status=status, adapter=self.audit().adapter(job_id), steps=self.steps(job_id))

    def steps(self, job_id: str) -> list[tuple[int, int]]:
        found = []
        for _, entry in self.redis.xrange(f"nss-train:progress:{job_id}"):
            event = json.loads(entry[b"event"])
            if event["action"] == "train.step":
                found.append((int(event["attempt"]), int(event["fields"]["step"])))
        return found

    def wait_for_step(self, job_id: str, step: int) -> None:
        """Wait until an attempt has reported a step at least this high."""
        assert wait_until(lambda: any(s >= step for _, s in self.steps(job_id)), WAIT_S), step

    def wait_for_stage(self, job_id: str, stage: Stage) -> WorkerHost:
        """Wait for the worker whose process works on a stage of a job, and return it."""
        assert wait_until(lambda: self.host_of(job_id, stage) is not None, WAIT_S), stage
        host = self.host_of(job_id, stage)
        assert host is not None
        return host

    def host_of(self, job_id: str, stage: Stage) -> WorkerHost | None:
        for host in self.cluster.hosts:
            if host.working_on and host.working_on.startswith(f"{job_id}.{stage}."):
                return host
        return None

    def endings(self, job_id: str, stage: Stage = Stage.TRAIN) -> list[AttemptEnd]:
        return self._records(job_id).endings(stage)

    def claims(self, job_id: str, stage: Stage = Stage.TRAIN) -> list[Claim]:
        records = self._records(job_id)
        numbers = records.attempts(stage)
        return [Claim.model_validate_json(records.store.read(records.keys.claim(stage, n))) for n in numbers]

    def shown(self, job_id: str) -> set[str]:
        """Return the visible documents that readers go by: markers of stages, and the outcome."""
        documents = {f"jobs/{job_id}/stages/{stage}.json" for stage in Stage} | {
            f"jobs/{job_id}/outcome.json"
        }
        return documents & set(self.audit().objects)

    def audit(self) -> Auditor:
        s3 = self.cluster.s3
        minio = Minio(s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key, secure=False)
        disks = [host.settings.scratch_dir for host in self.cluster.hosts]
        return Auditor(minio, s3.bucket, self.redis, disks)

    def violations(self, expected: dict[str, str]) -> list[str]:
        """Return what is wrong once everything has come to rest."""
        self.wait_until_quiet(40)
        return list(self.audit().violations(expected))

    def wait_until_quiet(self, deadline_s: float) -> bool:
        """Wait until all that was delivered and running has ended; return whether it did in time."""
        return wait_until(self._is_quiet, deadline_s)

    @property
    def redis(self) -> Redis:
        return Redis.from_url(self.cluster.valkey.url, socket_timeout=5)

    def _is_quiet(self) -> bool:
        if any(host.working_on for host in self.cluster.hosts):
            return False
        if any(queues.waiting(self.redis, self.cluster.settings).values()) or self._unacknowledged():
            return False
        return not [key for key in self.audit().objects if key.startswith("open/")]

    def _unacknowledged(self) -> int:
        """Count the messages that a worker holds, or that are redelivered soon.

        A message taken by a worker whose clock was hours ahead, and which was killed before its first
        heartbeat, is redelivered hours later, and finds its stage committed.
        """
        soon = time.time() + TIMINGS["visibility_timeout_s"]
        return int(self.redis.zcount("unacked_index", 0, soon))

    def _records(self, job_id: str) -> JobRepository:
        return JobRepository(open_store(self.cluster.settings), job_id)
