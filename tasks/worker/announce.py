"""The announcements of a worker: every few seconds it reports that it is up, and what it is busy with."""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Collection
from typing import Any

from celery import bootsteps
from celery.worker import state
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from tasks.broker.task_names import TASK_NAMES
from tasks.broker.workers import WORKERS, publish
from tasks.execution.unseen import Unseen
from tasks.worker.repeating import RepeatingStep

logger = logging.getLogger(__name__)

EVERY_S = 5.0
_DEVICES_S = 15.0
_MEMORY = ("nvidia-smi", "--query-gpu=index,uuid,memory.used", "--format=csv,noheader,nounits")


def gpu_memory(devices: Collection[str]) -> dict[str, int]:
    """Return the bytes in use on each whole GPU of these UUIDs; empty if there is none, or no answer."""
    try:
        told = subprocess.run(_MEMORY, check=True, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        logger.warning("nvidia-smi does not answer", exc_info=True)
        return {}
    lines = [[field.strip() for field in line.split(",")] for line in told.splitlines() if line.strip()]
    # A container may not see the memory of a GPU: "[Insufficient Permissions]".
    return {index: int(used) * 2**20 for index, uuid, used in lines if uuid in devices and used.isdecimal()}


class Devices:
    """The memory of a worker's devices, queried beside the event loop: the answer may take seconds."""

    def __init__(self, uuids: Collection[str]) -> None:
        self.used_bytes: dict[str, int] = {}
        self._uuids = uuids
        self._stop = threading.Event()
        if uuids and shutil.which(_MEMORY[0]):
            threading.Thread(target=self._look, name="devices", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _look(self) -> None:
        while not self._stop.is_set():
            self.used_bytes = gpu_memory(self._uuids)
            self._stop.wait(_DEVICES_S)


class AnnounceTimer(RepeatingStep):
    """A consumer step that reports what the worker does, for as long as its event loop turns."""

    def __init__(self, parent: object, **options: object) -> None:
        self._devices: Devices | None = None
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        self._devices = self._devices or Devices(parent.app.settings.devices)
        say = (parent.app.redis, str(parent.hostname), self._devices, parent.app.unseen)
        _say(*say)
        self.repeat(parent, EVERY_S, _say, *say)


class Farewell(bootsteps.StartStopStep):
    """A worker step that removes the announcement of a worker that shuts down cleanly."""

    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 (Celery's interface)

    def stop(self, parent: Any) -> None:
        try:
            parent.app.redis.hdel(WORKERS, str(parent.hostname))
        except RedisError:
            logger.warning("Redis does not answer: this worker counts as down for an hour", exc_info=True)


def _say(redis: Redis, name: str, devices: Devices, unseen: Unseen) -> None:
    used = {} if unseen else devices.used_bytes
    try:
        publish(redis, name, running=_running(), gpu_bytes=used)
    except (RedisError, ValidationError):
        logger.warning("the worker's state is not published", exc_info=True)


def _running() -> Counter[str]:
    """Count the stages at work in this worker, by queue."""
    stages = [request for request in tuple(state.active_requests) if request.name in TASK_NAMES.values()]
    return Counter(str(request.delivery_info.get("routing_key")) for request in stages)
