"""A round of chaos: jobs, faults by a seeded script, and an audit: ``python -m tests.chaos.round --seed 1``.

It prints one JSON line per kind of fault (how often, seconds to recovery) and one with the verdict.
A stage has recovered when it is claimed again, committed, or waits for a free worker. Time in which
a later fault kept the store or the broker down does not count.
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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
from redis.exceptions import RedisError

from nss_train.errors import InfrastructureError
from tasks.app import make_app
from tasks.broker.queues import lists
from tasks.scheduling import chain
from tasks.telemetry import counters
from tests.chaos.cluster import Cluster, wait_until
from tests.chaos.faults import FAULTS, Setting, Submission, script
from tests.chaos.jobs import Jobs

RECOVERY_LIMIT_S = 60.0
BETWEEN_S = (0.2, 2.0)
SEEDS = (1, 2, 3, 4)
OPEN_JOBS = 3
STEPS = 20
JOB_S = 120.0
"""Maximum seconds that a job may take on its own, without faults."""


class Round:
    """One seeded round on a cluster."""

    def __init__(self, cluster: Cluster, *, seed: int, faults: int, jobs: int, model: Path) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._script = script(self._rng, faults)
        self._jobs = Jobs(cluster, model)
        self._count = jobs
        self._recoveries: dict[str, list[float]] = defaultdict(list)
        self._done: dict[str, int] = defaultdict(int)
        self._watchers: list[threading.Thread] = []
        self._away = 0.0

    def run(self) -> dict[str, Any]:
        """Run undisturbed jobs first, then jobs with faults; return the verdict."""
        variants = [{"seed": seed, "ranks": 1} for seed in SEEDS] + [{"seed": SEEDS[0], "ranks": 2}]
        variants = variants[: max(1, min(len(variants), self._count))]
        calm = [self._submit(f"calm-{n}", variant) for n, variant in enumerate(variants)]
        self._wait_for_all(calm, JOB_S * len(calm))
        adapters = [self._jobs.audit().adapter(job.job_id) for job in calm]
        started = time.monotonic()
        jobs = [self._submit(f"job-{n}", variants[n % len(variants)]) for n in range(self._count)]
        self._disturb(jobs, variants)
        self._wait_for_all(jobs, JOB_S * len(jobs) + 120)
        seconds = time.monotonic() - started
        for watcher in self._watchers:
            watcher.join()
        # The numbering continues, so each job's variant follows from its place.
        expected = {job.job_id: adapters[n % len(variants)] for n, job in enumerate(jobs)}
        return self._verdict(expected, seconds)

    def _submit(self, key: str, variant: dict[str, int]) -> Submission:
        options: dict[str, Any] = {"steps": STEPS, "idempotency_key": key, **variant}
        return Submission(job_id=self._jobs.submit(**options), options=options)

    def _disturb(self, jobs: list[Submission], variants: list[dict[str, int]]) -> None:
        for number, name in enumerate(self._script, start=1):
            time.sleep(self._rng.uniform(*BETWEEN_S))
            still_open = [job for job in jobs if not self._ended(job)]
            if len(still_open) < OPEN_JOBS:
                # More work, so that the rest of the script has something to hit.
                jobs.append(self._submit(f"job-{len(jobs)}", variants[len(jobs) % len(variants)]))
                still_open.append(jobs[-1])
            setting = Setting(cluster=self._cluster, jobs=self._jobs, open=still_open, rng=self._rng)
            done, hit = self._do(name, setting)
            self._done[done] += 1
            print(f"{number}/{len(self._script)} {done}: {', '.join(hit)}", file=sys.stderr, flush=True)
            watcher = threading.Thread(target=self._time_recovery, args=(done, hit))
            watcher.start()
            self._watchers.append(watcher)

    def _do(self, name: str, setting: Setting) -> tuple[str, list[str]]:
        """Do a fault; return its name and what it hit. A worker is killed where that fault can do nothing."""
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
        """Tell whether a stage was claimed again, was committed, waits for a worker, or never stopped."""
        job_id, stage, number = attempt.split(".")
        try:
            if any(host.is_running(attempt) for host in self._cluster.hosts):
                return True
            status = self._jobs.client.status(job_id)
            found = next(one for one in status.stages if one.stage == stage)
            if status.ended or found.state == "done" or found.attempt > int(number):
                return True
            return any(job_id.encode() in self._bodies(queue) for queue in ("cpu", "cuda"))
        except (InfrastructureError, RedisError, OSError, psutil.Error):
            return False

    def _bodies(self, queue: str) -> bytes:
        return b"".join(text for key in lists(queue) for text in self._jobs.redis.lrange(key, 0, -1))

    def _ended(self, job: Submission) -> bool:
        try:
            return self._jobs.client.status(job.job_id).ended
        except InfrastructureError:
            return False

    def _wait_for_all(self, jobs: list[Submission], timeout_s: float) -> None:
        wait_until(lambda: all(self._ended(job) for job in jobs), timeout_s)
        # What is still delivered and running comes to its end, and reconcile tidies up after killed workers.
        self._jobs.wait_until_quiet(RECOVERY_LIMIT_S)

    def _verdict(self, expected: dict[str, str], seconds: float) -> dict[str, Any]:
        auditor = self._jobs.audit()
        found = [*auditor.violations(expected), *self._violations_of_redelivery(expected)]
        recoveries = [value for values in self._recoveries.values() for value in values]
        return {
            "faults": sum(self._done.values()),
            "jobs": len(expected),
            "seconds": round(seconds),
            "violations": found,
            "attempts": dict(auditor.claims()),
            "counters": counters.read(self._jobs.redis),
            "slowest_recovery_s": round(max(recoveries, default=0), 1),
            "by_fault": {name: self._summary(name) for name in sorted(self._done)},
        }

    def _violations_of_redelivery(self, jobs: Iterable[str]) -> Iterator[str]:
        """Check I3: everything is sent once more, and nothing changes."""
        before, app = self._jobs.audit().fingerprint(), make_app(self._cluster.settings)
        for job_id in jobs:
            chain.send(app, job_id)
        if not self._jobs.wait_until_quiet(RECOVERY_LIMIT_S):
            yield "I3: what was sent once more does not come to an end"
        after = self._jobs.audit().fingerprint()
        for key in sorted(before.keys() ^ after.keys() | {k for k in before if before[k] != after.get(k)}):
            yield f"I3: {key} changed when its job was sent once more"

    def _summary(self, name: str) -> dict[str, Any]:
        values = self._recoveries[name]
        if not values:
            return {"times": self._done[name]}
        return {
            "times": self._done[name],
            "median_s": round(statistics.median(values), 1),
            "max_s": round(max(values), 1),
        }


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
