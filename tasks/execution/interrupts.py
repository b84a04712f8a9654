"""The interrupts of a running attempt: a lost lease, a cancellation, a drain of the worker."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nss_train.contract import DRAIN, Stage
from nss_train.errors import StoreUnavailable
from tasks.broker.lease import Lease, Renewal
from tasks.execution.inputs import Worker
from tasks.execution.processes.supervisor import StageStopped, StopReason, tail
from tasks.jobs.gate import Gate
from tasks.jobs.repository import JobRepository

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_PAUSE_S = 1.0
_FOLDER_S = 10.0
_LEAVE_EARLY_S = 5.0
"""Part of the drain's grace that is kept for what follows when a stage has not stopped by itself."""


class Interrupts:
    """The checks that one attempt makes between two pieces of work."""

    def __init__(
        self, stage: Stage, number: int, *, records: JobRepository, worker: Worker, lease: Lease, gate: Gate
    ) -> None:
        self._stage = stage
        self._number = number
        keys = records.keys
        self._log = (keys.private_log if gate.strict else keys.log)(stage, number)
        self._records = records
        self._worker = worker
        self._lease = lease
        self._renewed_at = time.monotonic()
        self._attended_at = time.monotonic()
        self._looked_at = time.monotonic()
        self._drain_until: float | None = None
        self.folder: Path | None = None
        """Folder of the stage while its process runs."""

    def poll(self) -> StopReason | None:
        """Renew the lease and pass on a drain; return a reason to stop, if there is one."""
        self._attend_folder()
        if not self._is_ours():
            return StopReason.LEASE_LOST
        if self._is_cancelled():
            return StopReason.CANCELLED
        return StopReason.DRAINED if self._must_leave() else None

    def poll_throttled(self) -> None:
        """Check between the pieces of a long transfer. Raises :class:`StageStopped`."""
        if time.monotonic() - self._looked_at < self._worker.settings.tick_s:
            return
        self._looked_at = time.monotonic()
        self._go_on()

    def poll_ignoring_drain(self) -> None:
        """Check while the rest of the grace is used. Raises :class:`StageStopped`, but not for a drain."""
        reason = self.poll()
        if reason not in (None, StopReason.DRAINED):
            raise StageStopped(reason)

    def retry_while_store_unavailable(self, action: Callable[[], T]) -> T:
        """Call ``action`` until the store answers, or patience ends. Raises :class:`StageStopped`."""
        deadline = time.monotonic() + self._worker.settings.store_patience_s
        while True:
            try:
                return action()
            except StoreUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("waiting for the store: %s", error.message)
            time.sleep(_PATIENCE_PAUSE_S)
            self._go_on()

    @property
    def grace_left_s(self) -> float:
        """Return the seconds until a leaving worker must have left; its whole grace when it stays."""
        if self._drain_until is None:
            return self._worker.settings.drain_grace_s
        return max(0.0, self._drain_until - time.monotonic())

    def _go_on(self) -> None:
        reason = self.poll()
        if reason is not None:
            raise StageStopped(reason)

    def _is_ours(self) -> bool:
        if time.monotonic() - self._renewed_at < self._worker.settings.lease_ttl_s / 3:
            return True
        self._renewed_at = time.monotonic()
        renewal = self._lease.renew()
        if renewal is Renewal.HELD:
            return True
        try:
            return renewal is Renewal.REGAINED and not self._records.is_fenced(self._stage, self._number)
        except StoreUnavailable:
            return True  # the commit decides

    def _is_cancelled(self) -> bool:
        try:
            return self._worker.store.exists(self._records.keys.cancel)
        except StoreUnavailable:
            logger.warning("whether the job is cancelled cannot be read from the store", exc_info=True)
            return False

    def _must_leave(self) -> bool:
        if not self._worker.drain.is_set():
            return False
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self._worker.settings.drain_grace_s
        if self.folder is not None:
            (self.folder / DRAIN).touch()
        return self.grace_left_s <= min(_LEAVE_EARLY_S, self._worker.settings.drain_grace_s / 2)

    def _attend_folder(self) -> None:
        if self.folder is None or time.monotonic() - self._attended_at < _FOLDER_S:
            return
        self._attended_at = time.monotonic()
        with suppress(OSError):
            # Other machines may share the copy of the base model, and see only when it was used.
            os.utime(self.folder / "in" / "model")
        self.store_log(self.folder)

    def store_log(self, folder: Path) -> None:
        """Store the end of the stage's output, so that `logs` can show it to readers with access."""
        try:
            self._worker.store.write(self._log, tail(folder).encode(errors="replace"))
        except StoreUnavailable:
            logger.warning("the stage's output is not stored", exc_info=True)
