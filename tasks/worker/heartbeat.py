"""The file that a live worker touches, so that a dead one is restarted: ``<home>/heartbeats/<name>``.

The event loop of the worker's main process touches it, so that a process that hangs falls silent. While that
process waits for an unreachable broker, or for its stages to save their state and end, the loop does not
turn, and a thread touches the file instead: neither is the worker's fault.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import bootsteps

from tasks.permissions import make_folder
from tasks.worker.repeating import RepeatingStep

logger = logging.getLogger(__name__)

BEAT_S = 10.0


class Heartbeat:
    """The heartbeat of one worker. Not used before the worker starts; its processes do not share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Path | None = None
        self._waits = threading.Event()
        self._stop = threading.Event()

    def start(self, name: str) -> None:
        """Start the heartbeat of the worker of this name."""
        make_folder(self._folder)
        self._file = self._folder / name
        self.beat()
        threading.Thread(target=self._beat_while_waiting, name="heartbeat", daemon=True).start()

    def beat(self) -> None:
        """Touch the file. A full disk does not end the worker."""
        if self._file is None:
            return
        try:
            self._file.touch()
        except OSError:
            logger.warning("the heartbeat cannot be written", exc_info=True)

    @contextmanager
    def keep_alive_while_blocked(self) -> Iterator[None]:
        """Beat inside the block, where the main process waits for something that is not its fault."""
        self.enter_shutdown()
        try:
            yield
        finally:
            self._waits.clear()

    def enter_shutdown(self) -> None:
        """Beat from a thread: the main process only waits for its end, for which it has a limit."""
        self._waits.set()
        self.beat()

    def stop(self) -> None:
        """Remove the file: the worker has shut down cleanly and must not be restarted."""
        self._stop.set()
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    def _beat_while_waiting(self) -> None:
        while not self._stop.wait(BEAT_S):
            if self._waits.is_set():
                self.beat()


class HeartbeatStep(bootsteps.StartStopStep):
    """A worker step that keeps the heartbeat from before the first connection until the process ends."""

    # After the fork of the pool, which should not see a thread.
    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 (Celery's interface)

    def start(self, parent: Any) -> None:
        parent.app.heartbeat.start(str(parent.hostname))

    def close(self, parent: Any) -> None:
        parent.app.heartbeat.enter_shutdown()


class HeartbeatTimer(RepeatingStep):
    """A consumer step that beats each time the event loop comes round to it."""

    def start(self, parent: Any) -> None:
        self.repeat(parent, BEAT_S, parent.app.heartbeat.beat)
