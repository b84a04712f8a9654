"""A round of chaos: jobs, faults by a seeded script, and an audit: ``python -m tests.chaos.round --seed 1``.

Prints one JSON line per kind of fault (how often, seconds to recovery) and one with the verdict.
A stage has recovered when it is claimed again, committed, or waits for a free worker. Time in which
a later fault kept the store or the broker away does not count.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from minio import Minio
from redis import Redis
from redis.exceptions import RedisError

from nss_train.errors import InfrastructureError
from tasks.client import Client
from tests.chaos.auditor import Auditor
from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.faults import FAULTS, Setting, Submission, script

RECOVERY_LIMIT_S = 60.0
BETWEEN_S = (0.2, 2.0)
SEEDS = (1, 2, 3, 4)
OPEN_JOBS = 3
JOB_S = 120.0
"""Most that a job may take on its own, without faults."""


class Round:
    """One seeded round on a cluster."""

    def __init__(self, cluster: Cluster, *, seed: int, faults: int, jobs: int, model: Path) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._script = script(self._rng, faults)
        self._client = Client(cluster.settings)
        self._jobs = jobs
        self._model = model
        self._table = cluster.folder / "birds.csv"
        self._recoveries: dict[str, list[float]] = defaultdict(list)
        self._done: dict[str, int] = defaultdict(int)
        self._watchers: list[threading.Thread] = []
        self._away = 0.0

    def run(self) -> dict[str, Any]:
        """Undisturbed runs first, then the faults; the verdict."""
        self._write_table()
        variants = [(seed, 1) for seed in SEEDS] + [(SEEDS[0], 2)]
        variants = variants[: max(1, min(len(variants), self._jobs))]
        undisturbed = {variant: self._submit("calm", *variant) for variant in variants}
        self._wait_for_all(list(undisturbed.values()), JOB_S * len(variants))
        calm = self._auditor()
        digests = {variant: calm.adapter(job.job_id) for variant, job in undisturbed.items()}
        started = time.monotonic()
        jobs = [self._submit(f"job-{n}", *variants[n % len(variants)]) for n in range(self._jobs)]
        self._disturb(jobs, variants)
        self._wait_for_all(jobs, JOB_S * len(jobs) + 120)
        seconds = time.monotonic() - started
        for watcher in self._watchers:
            watcher.join()
        expected = {job.job_id: digests[job.seed, job.ranks] for job in jobs}
        return self._verdict(expected, seconds)

    def _submit(self, name: str, seed: int, ranks: int) -> Submission:
        config = {
            "data": {"holdout": 0, "random_state": 1},
            "preflight": {"disabled_checks": ["dataset.size"]},
            "training": {
                "pretrained_model": str(self._model),
                "num_input_records_to_sample": 120,
                "gradient_accumulation_steps": 2,
                "learning_rate": 0.01,
                "lora_r": 4,
            },
        }
        key = f"{name}-{seed}-{ranks}"
        job_id = self._client.submit(
            table=self._table, config=config, idempotency_key=key, seed=seed, ranks=ranks
        )
        return Submission(job_id=job_id, key=key, seed=seed, ranks=ranks, table=self._table, config=config)

    def _disturb(self, jobs: list[Submission], variants: list[tuple[int, int]]) -> None:
        for number, name in enumerate(self._script, start=1):
            time.sleep(self._rng.uniform(*BETWEEN_S))
            open_jobs = [job for job in jobs if not self._ended(job)]
            if len(open_jobs) < OPEN_JOBS:
                # More work, so that the rest of the script has something to hit.
                jobs.append(self._submit(f"more-{number}", *variants[number % len(variants)]))
                open_jobs.append(jobs[-1])
            setting = Setting(cluster=self._cluster, jobs=open_jobs, rng=self._rng)
            done, hit = self._do(name, setting)
            self._done[done] += 1
            print(f"{number}/{len(self._script)} {done}: {', '.join(hit)}", file=sys.stderr, flush=True)
            watcher = threading.Thread(target=self._time_recovery, args=(done, hit))
            watcher.start()
            self._watchers.append(watcher)

    def _do(self, name: str, setting: Setting) -> tuple[str, list[str]]:
        """The fault that was done, and what it hit; where there is nothing to do it to, a worker dies."""
        for one in (name, "kill -9 worker"):
            started = time.monotonic()
            hit = FAULTS[one][1](setting)
            if one.startswith(("S3", "Redis")):
                self._away += time.monotonic() - started
            if hit is not None:
                return one, hit
        raise AssertionError("a worker can always be killed")

    def _time_recovery(self, name: str, hit: list[str]) -> None:
        started, away = time.monotonic(), self._away
        for one in hit:
            if wait_until(lambda one=one: self._has_recovered(one), 4 * RECOVERY_LIMIT_S):
                outages = self._away - away
                self._recoveries[name].append(max(0.0, time.monotonic() - started - outages))
            else:
                self._recoveries[name].append(float("inf"))

    def _has_recovered(self, attempt: str) -> bool:
        """Whether a stage goes on: claimed again, committed, waiting for a worker, or never interrupted."""
        job_id, stage, number = attempt.split(".")
        try:
            if any(host.is_running(attempt) for host in self._cluster.hosts):
                return True
            status = self._client.status(job_id)
            found = next(one for one in status.stages if one.stage == stage)
            if status.ended or found.state == "done" or found.attempt > int(number):
                return True
            return any(job_id.encode() in self._bodies(queue) for queue in ("cpu", "cuda"))
        except (InfrastructureError, RedisError, OSError, psutil.Error):
            return False

    def _bodies(self, queue: str) -> bytes:
        return b"".join(self._redis().lrange(queue, 0, -1))

    def _redis(self) -> Redis:
        return Redis.from_url(self._cluster.valkey.url, socket_timeout=5)

    def _ended(self, job: Submission) -> bool:
        try:
            return self._client.status(job.job_id).ended
        except InfrastructureError:
            return False

    def _wait_for_all(self, jobs: list[Submission], timeout_s: float) -> None:
        wait_until(lambda: all(self._ended(job) for job in jobs), timeout_s)
        # What is still delivered and running comes to its end, and reconcile tidies up after the killed.
        wait_until(self._is_quiet, RECOVERY_LIMIT_S)

    def _is_quiet(self) -> bool:
        if any(host.working_on for host in self._cluster.hosts):
            return False
        redis = self._redis()
        if redis.llen("cpu") or redis.llen("cuda") or redis.hlen("unacked"):
            return False
        return not [key for key in self._auditor().objects if key.startswith("open/")]

    def _auditor(self) -> Auditor:
        s3 = self._cluster.s3
        minio = Minio(s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key, secure=False)
        disks = [host.settings.scratch_dir for host in self._cluster.hosts]
        return Auditor(minio, s3.bucket, self._redis(), disks)

    def _verdict(self, expected: dict[str, str], seconds: float) -> dict[str, Any]:
        auditor = self._auditor()
        found = list(auditor.violations(expected))
        recoveries = [value for values in self._recoveries.values() for value in values]
        redis = self._redis()
        return {
            "faults": sum(self._done.values()),
            "jobs": len(expected),
            "seconds": round(seconds),
            "violations": found,
            "attempts": dict(auditor.claims()),
            "counters": {k.decode(): int(v) for k, v in sorted(redis.hgetall("nss-train:counters").items())},
            "slowest_recovery_s": round(max(recoveries, default=0), 1),
            "by_fault": {name: self._summary(name) for name in sorted(self._done)},
        }

    def _summary(self, name: str) -> dict[str, Any]:
        values = self._recoveries[name]
        if not values:
            return {"times": self._done[name]}
        return {
            "times": self._done[name],
            "median_s": round(statistics.median(values), 1),
            "max_s": round(max(values), 1),
        }

    def _write_table(self) -> None:
        rows = [f"{'Adelie' if i % 3 else 'Gentoo'},{35 + i / 10},{3000 + 25 * i}" for i in range(60)]
        self._table.write_text("species,bill_length_mm,body_mass_g\n" + "\n".join(rows) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="folder for logs and data; a temporary one without it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = (arguments.keep or Path(temporary)) / f"seed-{arguments.seed}"
        folder.mkdir(parents=True)
        with Cluster(folder, workers=arguments.workers) as cluster:
            verdict = Round(
                cluster,
                seed=arguments.seed,
                faults=arguments.faults,
                jobs=arguments.jobs,
                model=arguments.model.absolute(),
            ).run()
    for name, row in verdict.pop("by_fault").items():
        print(json.dumps({"fault": name} | row))
    print(json.dumps({"seed": arguments.seed} | verdict))
    return 1 if verdict["violations"] or verdict["slowest_recovery_s"] > RECOVERY_LIMIT_S else 0


if __name__ == "__main__":
    sys.exit(main())
