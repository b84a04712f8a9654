"""The Celery application: queues, serializers, delivery options."""

from __future__ import annotations

import logging
import os
import signal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import Celery
from redis import Redis

from tasks.broker import queues, transport
from tasks.execution.drain_flag import DrainFlag
from tasks.execution.processes.hosts import Hosts
from tasks.execution.processes.watchdog import Watchdog
from tasks.execution.unseen import Unseen
from tasks.scheduling.routing import Router
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.store.open import open_store
from tasks.telemetry import tracing
from tasks.telemetry.counters import Action, count

if TYPE_CHECKING:
    from tasks.worker.autoexit import ExitPolicy
    from tasks.worker.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

RESTORE_INTERVAL_S = 30
"""Pause between two restorations of dead workers' messages; the visibility timeout if that is shorter."""

# By name: a client imports nothing of Celery's worker.
WORKER_STEPS = (
    "tasks.worker.announce:Farewell",
    "tasks.worker.drain:DrainStep",
    "tasks.worker.heartbeat:HeartbeatStep",
    "tasks.worker.reconciler_step:ReconcilerStep",
)
CONSUMER_STEPS = (
    "tasks.worker.announce:AnnounceTimer",
    "tasks.worker.autoexit:ExitStep",
    "tasks.worker.heartbeat:HeartbeatTimer",
)


class App(Celery):
    """Celery with this project's settings, and the connections its tasks use.

    The connections are made on first use, which is after the worker has forked.
    """

    events_cls = "tasks.worker.events:PromptEvents"

    def __init__(self, settings: Settings) -> None:
        transport.install()
        super().__init__("nss_train", broker=transport.verified(settings.broker_url.get_secret_value()))
        self.settings = settings
        self.Task.Request = "tasks.worker.handover:GuardedRequest"
        self.conf.update(delivery_options(settings) | {"task_routes": (Router(self),)})
        if settings.visibility_heartbeat:
            self.steps["consumer"].add("tasks.worker.visibility:VisibilityStep")
        self.drain = DrainFlag()
        self.unseen = Unseen()
        self.hosts = Hosts(wanted=settings.warm_hosts != "never")
        self.watchdog = Watchdog()
        self.steps["worker"].update(WORKER_STEPS)
        self.steps["consumer"].update(CONSUMER_STEPS)
        self.heartbeat: Heartbeat | None = None
        """Heartbeat of a worker's process; a client has none."""
        self.exit_policy: ExitPolicy | None = None
        """Policy by which a worker exits by itself; ``None``: it stays."""

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 (Celery's name)
        return self.subclass_with_self("tasks.worker.handover:GuardedWorker", name="Worker")

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings)

    @cached_property
    def redis(self) -> Redis:
        return connect_redis(self.settings)

    def stage_done(self) -> None:
        """Count a stage that has ended on this worker, for its exit policy."""
        if self.exit_policy is not None:
            self.exit_policy.count()

    def leave(self, why: str) -> None:
        """Start a warm shutdown of this worker: it holds something that it could not release."""
        logger.error("the worker leaves: %s", why, extra={"action": "worker.unhealthy"})
        count(self.redis, Action.TEARDOWN_LEAKS)
        # Stages run in a child of the worker's main process.
        os.kill(os.getppid(), signal.SIGTERM)


def connect_redis(settings: Settings, *, timeout_s: float = 30) -> Redis:
    """Return a client that notices a dead peer within seconds."""
    return Redis.from_url(
        transport.verified(settings.broker_url.get_secret_value()),
        socket_connect_timeout=min(5, timeout_s),
        socket_timeout=timeout_s,
        socket_keepalive=True,
        health_check_interval=25,
    )


def make_app(settings: Settings) -> App:
    """Return an application for a client or a worker; nothing is connected yet."""
    tracing.configure(settings)
    app = App(settings)
    app.conf.include = ["tasks.celery_tasks"]
    return app


def delivery_options(settings: Settings) -> dict[str, object]:
    """Return the options that Celery's and kombu's documentation of the Redis transport explains."""
    return {
        # JSON only: a pickle on the broker would run code.
        "task_serializer": "json",
        "accept_content": ["json"],
        "event_serializer": "json",
        # The store holds the results.
        "task_ignore_result": True,
        "result_backend": "disabled://",
        "task_default_queue": settings.queue_cpu,
        # A message is done when its stage is; the attempts are capped in the store.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "broker_transport_options": {
            "guarded_queues": queues.names(settings),
            "visibility_timeout": settings.visibility_timeout_s,
            "unacked_restore_interval": min(RESTORE_INTERVAL_S, settings.visibility_timeout_s),
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "health_check_interval": 25,
        },
        "broker_connection_retry_on_startup": True,
        "worker_consumer": "tasks.worker.consumer:PatientConsumer",
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Flower shows what the events say.
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "task_track_started": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }
