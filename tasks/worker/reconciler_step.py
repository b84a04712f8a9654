"""The process beside a worker's pool that reconciles from time to time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from celery import bootsteps

from tasks.settings import worker_environment

_STOP_S = 5.0


class ReconcilerStep(bootsteps.StartStopStep):
    """A worker step that starts the reconciler's process, and starts it again when it has died."""

    requires = {"celery.worker.components:Pool", "celery.worker.components:Timer"}  # noqa: RUF012 (Celery's)

    def __init__(self, parent: object, **options: object) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        every_s = parent.app.settings.reconcile_every_s
        if every_s > 0:
            self._keep_up(parent)
            parent.timer.call_repeatedly(every_s, self._keep_up, (parent,))

    def stop(self, _parent: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_S)

    terminate = stop

    def _keep_up(self, parent: Any) -> None:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "tasks.worker.reconciler", "--parent", str(os.getpid())]
            self._process = subprocess.Popen(command, env=worker_environment(parent.app.settings))
