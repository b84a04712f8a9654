"""One worker for each CUDA device: ``nss-train worker --per-gpu``. They are kept up, and end together.

A worker that dies is started again, after a pause that doubles each time; one that keeps dying is given up,
and the others go on. SIGTERM and SIGINT are passed on to all; where this process dies, the kernel ends them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass

from nss_train.errors import InfrastructureError, ParameterError, Problem
from nss_train.process import keep_files_to_itself, keep_memory_to_itself
from tasks.devices import Device, check_free, visible
from tasks.settings import VISIBLE_DEVICES, Settings, worker_environment
from tasks.store.open import open_store
from tasks.telemetry import logs

logger = logging.getLogger(__name__)

RESTARTS = 5
"""Times that a worker which keeps dying is started again."""
HEALTHY_S = 600.0
"""Life of a worker after which its earlier deaths are forgotten."""
PAUSE_S = 1.0
"""Pause before the first restart."""
_FINAL = (os.EX_OK, ParameterError.exit_code, os.EX_TEMPFAIL)
"""Exit codes of a worker that has left, or was refused, or was told twice to leave: it is not restarted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceWorker:
    """A worker of one device: its name, its command line and its environment."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]

    @classmethod
    def of(cls, device: Device, settings: Settings, *, name: str, options: Sequence[str]) -> DeviceWorker:
        """Return the worker ``cuda-0@host`` of device 0 for the name ``cuda@host``."""
        stem, _, host = name.partition("@")
        mine = f"{stem}-{device.index}@{host or '%h'}"
        parent = ("--parent", str(os.getpid()))
        environment = worker_environment(settings.model_copy(update={"devices": (device.uuid,)}))
        return cls(
            name=mine,
            command=(sys.executable, "-m", "tasks.worker", "--name", mine, *parent, *options),
            environment=environment | {VISIBLE_DEVICES: device.uuid},
        )


def run_workers(settings: Settings, *, name: str, options: Sequence[str]) -> int:
    """Run a worker for each visible device until all have left; return the highest of their exit codes.

    ``options`` are those of ``python -m tasks.worker``. Raises :class:`ParameterError` before any starts.
    """
    open_store(settings)  # wrong settings of the store are reported before anything begins
    devices = visible(settings)
    if not devices:
        seen = None if settings.wanted_devices is None else ",".join(settings.wanted_devices)
        remedy = "`nvidia-smi -L` lists none here; leave --per-gpu out to train on the CPU"
        problem = Problem(field=VISIBLE_DEVICES, value=seen, remedy=remedy)
        raise ParameterError("There is no CUDA device to start a worker for.", [problem])
    check_free(devices, settings)
    keep_memory_to_itself()
    keep_files_to_itself()
    logs.configure(settings.log_format)
    workers = [DeviceWorker.of(device, settings, name=name, options=options) for device in devices]
    return asyncio.run(_run(workers))


async def _run(workers: Sequence[DeviceWorker]) -> int:
    crew, loop = Crew(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, crew.pass_on, number)
    codes = await asyncio.gather(*(crew.keep(worker) for worker in workers))
    return max(codes)


class Crew:
    """The running workers of this machine's devices."""

    def __init__(self) -> None:
        self._running: set[Process] = set()
        self._leaving = asyncio.Event()

    def pass_on(self, number: signal.Signals) -> None:
        """Send a signal to every worker. None is started any more; a second one makes them leave at once."""
        logger.warning("%s: all workers leave", number.name, extra={"action": "worker.draining"})
        self._leaving.set()
        for process in self._running:
            process.send_signal(number)

    async def keep(self, worker: DeviceWorker) -> int:
        """Keep a worker up until it has left or is given up; return its last exit code."""
        loop, deaths = asyncio.get_running_loop(), 0
        while not self._leaving.is_set():
            started = loop.time()
            code = await self._live(worker)
            if self._leaving.is_set() or code in _FINAL:
                return _exit_code(code, leaving=self._leaving.is_set())
            deaths = 1 if loop.time() - started > HEALTHY_S else deaths + 1
            if deaths > RESTARTS:
                fields = {"action": "worker.given_up", "worker": worker.name}
                logger.error("worker %s is given up: it %s", worker.name, _ended(code), extra=fields)
                return _exit_code(code, leaving=False)
            await self._pause(worker, code, deaths)
        return os.EX_OK

    async def _live(self, worker: DeviceWorker) -> int:
        # A session of its own: Ctrl-C in a terminal reaches this process alone.
        process = await asyncio.create_subprocess_exec(
            *worker.command, env=worker.environment, start_new_session=True
        )
        fields = {"action": "worker.started", "worker": worker.name, "pid": process.pid}
        logger.info("worker %s is process %d", worker.name, process.pid, extra=fields)
        self._running.add(process)
        try:
            if self._leaving.is_set():  # it was told while this one was being started
                process.terminate()
            return await process.wait()
        finally:
            self._running.remove(process)

    async def _pause(self, worker: DeviceWorker, code: int, deaths: int) -> None:
        pause_s = PAUSE_S * 2 ** (deaths - 1)
        fields = {"action": "worker.died", "worker": worker.name, "exit_code": code}
        said = f"worker {worker.name} {_ended(code)}: it starts again in {pause_s:g} s"
        logger.error("%s (%d of %d)", said, deaths, RESTARTS, extra=fields)
        try:
            await asyncio.wait_for(self._leaving.wait(), pause_s)
        except TimeoutError:
            return


def _ended(code: int) -> str:
    """Describe the end of a process in words."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _exit_code(code: int, *, leaving: bool) -> int:
    """Return a worker's exit code. The signal to leave ends one that is not up yet."""
    if code >= 0:
        return code
    told = leaving and -code in (signal.SIGTERM, signal.SIGINT)
    return os.EX_OK if told else InfrastructureError.exit_code
