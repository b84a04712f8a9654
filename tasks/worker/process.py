"""A worker process: ``python -m tasks.worker --queues cpu --name cpu@host``."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Collection
from functools import partial

from celery import signals
from celery.utils.nodenames import default_nodename, host_format
from redis.exceptions import RedisError

from nss_train import command
from nss_train.contract import Stage
from nss_train.errors import NSSTrainError
from nss_train.process import die_with_parent, keep_files_to_itself, keep_memory_to_itself
from tasks.app import App, connect_redis, make_app
from tasks.broker.checks import weaknesses
from tasks.devices import Device, claimed, visible
from tasks.execution.scratch import sweep
from tasks.permissions import warn_of_open_folders
from tasks.settings import Settings, child_environment, unknown_settings
from tasks.store.open import open_store
from tasks.telemetry import logs
from tasks.worker.autoexit import ExitPolicy
from tasks.worker.revocation import on_revoked

logger = logging.getLogger(__name__)


def main() -> None:
    parser = command.Parser(prog="python -m tasks.worker", description=__doc__)
    parser.add_argument("--queues", required=True, help="comma-separated queue names")
    parser.add_argument("--name", required=True, help="unique name, such as cpu@host")
    parser.add_argument("--concurrency", type=int, default=1, help="stages at a time")
    parser.add_argument("--max-jobs", type=int, help="leave after so many stages")
    parser.add_argument("--idle-exit-s", type=float, help="leave after so many seconds without a stage")
    parser.add_argument("--parent", type=int, help="pid of a supervisor, without which this process ends")
    arguments = vars(parser.parse_args())
    parent = arguments.pop("parent")
    if parent is not None:
        die_with_parent(parent)
    try:
        run_worker(Settings(), arguments.pop("queues"), **arguments)
    except NSSTrainError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def run_worker(
    settings: Settings,
    queues: str,
    *,
    name: str,
    concurrency: int,
    max_jobs: int | None = None,
    idle_exit_s: float | None = None,
) -> None:
    """Serve the queues until SIGTERM, or until a stint is over (:mod:`tasks.worker.autoexit`).

    The pool is prefork, because only there the worker answers while a stage runs.
    """
    open_store(settings)  # wrong settings of the store are reported before anything begins
    keep_memory_to_itself()  # its environment holds the passwords that stages do not get
    keep_files_to_itself()
    logs.configure(settings.log_format)
    warn_of_unknown_settings()
    warn_of_open_folders(settings)
    sweep(settings.scratch_dir)
    _warn_of_broker(settings)
    exit_policy = None
    if max_jobs is not None or idle_exit_s is not None:
        exit_policy = ExitPolicy(max_jobs=max_jobs, idle_exit_s=idle_exit_s)
    devices = _devices(settings, queues)
    with claimed(devices, settings, worker=host_format(default_nodename(name))) as mine:
        app = make_app(mine)
        app.exit_policy = exit_policy
        options = (f"--queues={queues}", f"--hostname={name}", f"--concurrency={concurrency}")
        _serve(app, *options, stages=stages_of(queues, settings))


def _devices(settings: Settings, queues: str) -> list[Device]:
    """Return the devices to claim: a worker of the queue cpu alone trains nothing."""
    idle = {settings.queue_cpu} - set(settings.cuda_queue_names)
    return visible(settings) if set(queues.split(",")) - idle else []


def _serve(app: App, *options: str, stages: Collection[Stage]) -> None:
    # Celery keeps weak references of its receivers.
    starts = partial(_on_pool_process, app=app, stages=stages)
    revokes = partial(_on_revoked, app=app)
    signals.worker_init.connect(_on_start)
    signals.worker_ready.connect(_on_start)
    signals.worker_process_init.connect(starts)
    signals.task_revoked.connect(revokes)
    always = ("--pool=prefork", "-O", "fair", "--events", "--without-gossip", "--without-mingle")
    try:
        app.worker_main(["worker", *options, *always])
    finally:
        if app.heartbeat is not None:
            app.heartbeat.stop()


def _on_start(**_: object) -> None:
    """Exempt what stays from garbage collection: a look through the imports takes 40 ms.

    This runs before the pool forks, so that its processes share these pages; and again when all is imported.
    """
    gc.freeze()


def _on_pool_process(*, app: App, stages: Collection[Stage], **_: object) -> None:
    """Tie a pool's process to its worker's life, clean up after a killed predecessor, warm up."""
    die_with_parent(os.getppid())
    sweep(app.settings.scratch_dir)
    if app.settings.warm_hosts == "ahead":
        app.hosts.warm(stages, child_environment(app.settings))


def stages_of(queues: str, settings: Settings) -> set[Stage]:
    """Return the stages that wait in these queues."""
    names, stages = set(queues.split(",")), set()
    if settings.queue_cpu in names:
        stages |= set(Stage) - {Stage.TRAIN}
    if not names.isdisjoint(settings.cuda_queue_names):
        stages.add(Stage.TRAIN)
    return stages


def _on_revoked(*, app: App, request: object, **_: object) -> None:
    on_revoked(app, request)


def warn_of_unknown_settings() -> None:
    """Log a warning for each variable of the environment that is a misspelt setting."""
    for problem in unknown_settings():
        logger.warning("%s: %s", problem.field, problem.remedy, extra={"action": "settings.unknown"})


def _warn_of_broker(settings: Settings) -> None:
    try:
        found = weaknesses(connect_redis(settings))
    except RedisError:
        logger.warning("the broker does not answer yet", exc_info=True)
        return
    for problem in found:
        logger.warning("broker: %s", problem, extra={"action": "broker.weak"})
