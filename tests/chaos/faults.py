"""Faults: each does its harm, heals it where it must, and reports which stages it hit."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from nss_train.contract import Stage
from tasks.app import make_app
from tasks.scheduling import chain
from tests.chaos.cluster import LEASE_S, Cluster, WorkerHost, is_small_disk
from tests.chaos.jobs import Jobs
from tests.chaos.proxy import Mode

DOWN_S = 30.0
SHORT_S = 4.0
DRAINED_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job, and what is needed to submit it again."""

    job_id: str
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The cluster and the jobs that a fault acts on."""

    cluster: Cluster
    jobs: Jobs
    open: list[Submission]
    rng: random.Random

    def host(self) -> WorkerHost:
        """Return a busy worker, or any worker when none is busy."""
        busy = [host for host in self.cluster.hosts if host.working_on]
        return self.rng.choice(busy or self.cluster.hosts)

    def working_on(self) -> list[str]:
        return [name for host in self.cluster.hosts if (name := host.working_on)]


Fault = Callable[[Setting], "list[str] | None"]
"""Function that returns the stages (``job.stage.attempt``) it hit, or ``None`` if it could not act now."""


def kill_worker(setting: Setting) -> list[str]:
    host = setting.host()
    hit = host.working_on
    host.kill()
    host.start()
    return [hit] if hit else []


def kill_pool_process(setting: Setting) -> list[str] | None:
    host = setting.host()
    hit, process = host.working_on, host.pool_process()
    if process is None:
        return None
    with suppress(psutil.NoSuchProcess):
        process.kill()
    return [hit] if hit else []


def kill_stage(setting: Setting) -> list[str] | None:
    host = setting.host()
    hit, processes = host.working_on, host.stage_processes()
    if not hit or not processes:
        return None
    with suppress(psutil.NoSuchProcess):
        processes[0].kill()
    return [hit]


def kill_warm_host(setting: Setting) -> list[str] | None:
    """Kill the processes from which a worker forks its stages: a running one dies with its own."""
    host = setting.host()
    hit, processes = host.working_on, host.warm_hosts()
    if not processes:
        return None
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return [hit] if hit else []


def kill_rank(setting: Setting) -> list[str] | None:
    groups = [(host, host.stage_processes()) for host in setting.cluster.hosts]
    groups = [(host, processes) for host, processes in groups if len(processes) > 1]
    if not groups:
        return None
    host, processes = setting.rng.choice(groups)
    hit = host.working_on
    with suppress(psutil.NoSuchProcess):
        setting.rng.choice(processes[1:]).kill()
    return [hit] if hit else []


def stop_and_continue(setting: Setting) -> list[str]:
    """Stop a worker for longer than its lease, then let it continue: a zombie."""
    host = setting.host()
    hit, tree = host.working_on, host.tree()
    _signal(tree, signal.SIGSTOP)
    time.sleep(2 * LEASE_S)
    _signal(tree, signal.SIGCONT)
    return [hit] if hit else []


def restart_redis(setting: Setting) -> list[str]:
    setting.cluster.valkey.kill()
    time.sleep(1)
    setting.cluster.valkey.start()
    return setting.working_on()


def restart_redis_without_data(setting: Setting) -> list[str]:
    valkey = setting.cluster.valkey
    valkey.kill()
    shutil.rmtree(valkey.folder / "appendonlydir", ignore_errors=True)
    valkey.start()
    return setting.working_on()


def flush_redis(setting: Setting) -> list[str]:
    make_app(setting.cluster.settings).redis.flushall()
    return setting.working_on()


def stop_store(setting: Setting, seconds: float = DOWN_S) -> list[str]:
    setting.cluster.s3.stop()
    time.sleep(seconds)
    setting.cluster.s3.start()
    return setting.working_on()


def store_misbehaves(mode: Mode) -> Fault:
    def fault(setting: Setting) -> list[str]:
        setting.cluster.set_store(mode)
        time.sleep(SHORT_S)
        setting.cluster.set_store(Mode.PASS)
        return setting.working_on()

    return fault


def drain(setting: Setting) -> list[str]:
    host = setting.host()
    hit = host.working_on
    host.terminate(DRAINED_S)
    host.start()
    return [hit] if hit else []


def drain_in_a_hurry(setting: Setting) -> list[str]:
    host = setting.host()
    hit, process = host.working_on, host.process
    if process is not None:
        process.terminate()
        time.sleep(1)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(DRAINED_S)
    host.kill()
    host.start()
    return [hit] if hit else []


def fill_disk(setting: Setting) -> list[str] | None:
    host = setting.host()
    hit, ballast = host.working_on, host.settings.scratch_dir / "ballast"
    if not is_small_disk(host.settings.scratch_dir):
        return None
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"\0" * 2**20)
    time.sleep(SHORT_S)
    ballast.unlink(missing_ok=True)
    return [hit] if hit else []


def move_clock(setting: Setting) -> list[str]:
    """Set a wrong clock, or a right one again. S3 refuses clocks that are hours off, so one stays right."""
    host = setting.host()
    wrong = [one for one in setting.cluster.hosts if one.clock]
    if len(wrong) == len(setting.cluster.hosts) - 1:
        host = setting.rng.choice(wrong)
    hit = host.working_on
    host.kill()
    host.clock = setting.rng.choice(["", "+5m", "-5m", "+2h", "-2h"]) if not host.clock else ""
    host.start()
    return [hit] if hit else []


def deliver_twice(setting: Setting) -> list[str]:
    job = setting.rng.choice(setting.open)
    app = make_app(setting.cluster.settings)
    stage = setting.rng.choice(list(Stage)[:2])
    senders = [
        threading.Thread(target=chain.send, args=(app, job.job_id), kwargs={"start": stage}) for _ in range(2)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return []


def submit_again(setting: Setting) -> list[str]:
    job = setting.rng.choice(setting.open)
    assert setting.jobs.submit(**job.options) == job.job_id
    return []


FAULTS: dict[str, tuple[int, Fault]] = {
    "kill -9 worker": (5, kill_worker),
    "kill -9 pool process": (4, kill_pool_process),
    "kill -9 stage process": (6, kill_stage),
    "kill -9 warm hosts": (4, kill_warm_host),
    "kill -9 rank": (4, kill_rank),
    "SIGSTOP beyond the lease": (3, stop_and_continue),
    "Redis restarted with data": (2, restart_redis),
    "Redis restarted without data": (2, restart_redis_without_data),
    "FLUSHALL": (3, flush_redis),
    "S3 stopped for 30 s": (1, stop_store),
    "S3 slow": (2, store_misbehaves(Mode.SLOW)),
    "S3 answers 500": (2, store_misbehaves(Mode.ERRORS)),
    "S3 cuts bodies": (2, store_misbehaves(Mode.CUT)),
    "S3 refuses connections": (2, store_misbehaves(Mode.DOWN)),
    "SIGTERM (drain)": (4, drain),
    "SIGTERM twice": (2, drain_in_a_hurry),
    "scratch disk full": (2, fill_disk),
    "clock moved": (2, move_clock),
    "message delivered twice": (3, deliver_twice),
    "submit retried": (2, submit_again),
}
"""Name → relative frequency, and the fault."""


def script(rng: random.Random, count: int) -> list[str]:
    """Return the faults of a round: each at least once where there is room, then by their weights."""
    names = list(FAULTS)
    rng.shuffle(names)
    weights = [FAULTS[name][0] for name in names]
    more = rng.choices(names, weights, k=max(0, count - len(names)))
    rng.shuffle(more)
    return [*names[:count], *more]


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
