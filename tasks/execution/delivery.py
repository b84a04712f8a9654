"""One delivery of one stage: who may work on it, and what its end means for the job."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from nss_train.contract import Stage
from nss_train.errors import (
    DiskFull,
    InfrastructureError,
    NSSTrainError,
    ParameterError,
    Retry,
    StoreUnavailable,
)
from nss_train.extras import needed_by, require_extras
from tasks.broker.lease import Lease
from tasks.execution.attempt import Attempt
from tasks.execution.checkpoints import CheckpointStore
from tasks.execution.disk import spare_disk
from tasks.execution.inputs import Worker
from tasks.execution.interrupts import Interrupts
from tasks.execution.processes.supervisor import StageStopped, StopReason
from tasks.jobs.attempts import AttemptsExhausted
from tasks.jobs.documents import EndKind, JobRequest, Outcome, StageMessage
from tasks.jobs.gate import Gate
from tasks.jobs.repository import JobRepository
from tasks.jobs.versioning import NewerVersion, Unreadable
from tasks.telemetry import tracing
from tasks.telemetry.counters import Action, count
from tasks.telemetry.histograms import QUEUE_WAIT_SECONDS, STAGE_SECONDS, StageEnd, count_job, observe
from tasks.telemetry.logs import about

logger = logging.getLogger(__name__)

RETRY_DELAY_S = 5.0
_ENDS = {
    EndKind.FAILED: StageEnd.RETRIED,
    EndKind.DRAINED: StageEnd.DRAINED,
    EndKind.LOST: StageEnd.LOST,
}
_FINAL = (StageEnd.SUCCEEDED, StageEnd.FAILED, StageEnd.CANCELLED)
"""Ends after which the stage need not run again."""
NEWER_DELAY_S = 30.0
"""Pause between two looks at what only a newer release can do; one of its workers can take it meanwhile."""


class JobEnded(Exception):
    """The job has its outcome: no stage of it runs any more."""


class Superseded(Exception):
    """Another delivery works on the stage and passes on to the next one; this one is not needed."""


class TryLater(Exception):
    """The stage cannot run here and now; the message is worth another delivery."""

    def __init__(self, why: str, delay_s: float = RETRY_DELAY_S) -> None:
        super().__init__(why)
        self.delay_s = delay_s


def run_stage(message: StageMessage, *, worker: Worker) -> None:
    """Do what a message asks for, once; return when its stage is committed.

    Raises :class:`JobEnded` or :class:`Superseded` when the chain must stop here, :class:`TryLater` when the
    message should be delivered again, and the stage's own error after recording it as the job's outcome.
    """
    with about(job_id=message.job_id, stage=message.stage.value), tracing.of_job(message.job_id):
        try:
            _deliver(message, JobRepository(worker.store, message.job_id), worker)
        except Unreadable as error:
            # Its message would only fail again; reconcile sends another when the document is repaired.
            logger.exception(
                "job %s is skipped because one of its documents cannot be read",
                message.job_id,
                extra={"action": "job.unreadable"},
            )
            raise Superseded(str(error)) from error
        except InfrastructureError as error:
            raise TryLater(str(error), delay_s=_delay_s(error)) from error


def _deliver(message: StageMessage, records: JobRepository, worker: Worker) -> None:
    if records.is_finished(message.stage):
        return
    ended = records.outcome()
    if ended is not None:
        count_job(worker.redis, message.job_id, ended.outcome)  # a client that cancels counts nothing
        raise JobEnded(f"job {message.job_id} is {ended.outcome}")
    job = _check_turn(message.stage, records)
    spare_disk(worker)
    lease = Lease.acquire(worker.redis, message.job_id, message.stage, ttl_s=worker.settings.lease_ttl_s)
    if lease is None:
        # If its holder is dead, reconcile sends the stage again once the lease has expired.
        count(worker.redis, Action.DUPLICATES)
        raise Superseded(f"another worker holds the lease of {message.stage}")
    try:
        Delivery(message.stage, records=records, worker=worker, lease=lease, job=job).run()
    finally:
        lease.release()


def _check_turn(stage: Stage, records: JobRepository) -> JobRequest:
    """Return the job of a stage whose turn it is; raise :class:`Superseded` for any other message.

    Nothing is written or claimed for a message until then.
    """
    try:
        request = records.request()
    except ParameterError as error:
        raise Superseded(f"there is no job {records.job_id}") from error
    stages = list(Stage)
    before = stages[: stages.index(stage)]
    if before and records.marker(before[-1]) is None:
        # The stage's own message comes when the one before it is committed.
        raise Superseded(f"it is not the turn of {stage}")
    return request


class Delivery:
    """A delivery that holds the lease."""

    def __init__(
        self, stage: Stage, *, records: JobRepository, worker: Worker, lease: Lease, job: JobRequest
    ) -> None:
        self._stage = stage
        self._records = records
        self._worker = worker
        self._lease = lease
        self._webhook = job.webhook
        self._extras = needed_by(job.config)
        self._gate = Gate.of(job.config, worker.settings)
        self._token = secrets.token_hex(8)
        self._number: int | None = None
        self._began_at = time.monotonic()

    def run(self) -> None:
        """Run the stage unless it turns out to be committed, and turn every end into a record."""
        end: StageStopped | NSSTrainError | None = None
        try:
            self._stop_if_cancelled()
            if self._records.marker(self._stage) is None:
                self._attempt()
            if self._stage is Stage.SAVE_MODEL:
                self._finish(Outcome.SUCCEEDED)
        except Unreadable:
            raise
        except (StageStopped, NSSTrainError) as caught:
            end = caught
        except Exception as error:  # the task boundary: a defect ends the job instead of losing it
            if not self._gate.strict:
                logger.exception("stage %s of job %s", self._stage, self._records.job_id)
            end = NSSTrainError(f"Unexpected {type(error).__name__}: {error}")
        # Handled outside the except blocks: a traceback would drag along what they caught.
        match end:
            case StageStopped(reason=reason):
                self._stopped(reason)
            case NSSTrainError() as failure:
                self._failed(failure)

    def _stop_if_cancelled(self) -> None:
        if self._records.cancellation() is not None:
            raise StageStopped(StopReason.CANCELLED)

    def _attempt(self) -> None:
        settings = self._worker.settings
        self._number = self._records.claim(
            self._stage,
            worker=self._worker.name,
            max_attempts=settings.max_attempts,
            position=self._position(),
            token=self._token,
            gate=self._gate,
        )
        require_extras(*self._extras)
        if self._number == 1 and self._worker.queue:
            self._waited()
        with about(attempt=self._number), self._traced(self._number):
            if self._attempt_number(self._number).run():
                self._measure(StageEnd.SUCCEEDED)
            else:
                # The attempt that was first also passes on to the next stage; doing so twice does no harm.
                self._end(EndKind.LOST)
        if self._webhook is not None and self._webhook.progress:
            self._worker.announce(self._records.job_id)

    def _position(self) -> int:
        """Return where an attempt begins; the step of a strictly private one is not published."""
        if self._stage is not Stage.TRAIN:
            return 0
        strict = self._gate.strict
        kept = CheckpointStore(self._worker.store, self._records.keys, private=strict).newest()
        if kept is None:
            return 0
        return kept.attempt if strict else kept.step

    def _attempt_number(self, number: int) -> Attempt:
        records, worker, gate = self._records, self._worker, self._gate
        interrupts = Interrupts(
            self._stage, number, records=records, worker=worker, lease=self._lease, gate=gate
        )
        return Attempt(self._stage, number, records=records, worker=worker, interrupts=interrupts, gate=gate)

    @contextmanager
    def _traced(self, number: int) -> Iterator[None]:
        """Trace the attempt as a span; that of a strictly private one is to the minute, and empty."""
        attributes: dict[str, str | int] = {"attempt": number, "worker": self._worker.name}
        if not self._gate.strict:
            with tracing.span(self._stage.value, **attributes):
                yield
            return
        began = self._gate.began(datetime.now(UTC))
        try:
            with tracing.quiet(), self._worker.unseen.here():
                yield
        finally:
            tracing.past(self._stage.value, began, self._gate.ended(datetime.now(UTC)), **attributes)

    def _waited(self) -> None:
        """Record how long the stage waited for a worker."""
        ready, began = self._ready_at(), datetime.now(UTC)
        waited_s = self._gate.seconds(QUEUE_WAIT_SECONDS.name, (began - ready).total_seconds())
        if waited_s is not None:
            observe(self._worker.redis, QUEUE_WAIT_SECONDS, (self._worker.queue,), waited_s)
        if not self._gate.strict:
            tracing.past("queued", ready, began, queue=self._worker.queue)

    def _ready_at(self) -> datetime:
        """Return when the stage could have begun: after the one before it, or when the job was submitted."""
        before = list(Stage)[: list(Stage).index(self._stage)]
        marker = self._records.marker(before[-1]) if before else None
        return self._records.request().submitted_at if marker is None else marker.finished_at

    def _stopped(self, reason: StopReason) -> None:
        if reason is StopReason.CANCELLED:
            cancel = self._records.cancellation()
            why = None if cancel is None else str(cancel)
            self._finish(Outcome.CANCELLED, reason=why)
            raise JobEnded(f"job {self._records.job_id} is cancelled")
        if reason is StopReason.LEASE_LOST:
            self._end(EndKind.LOST)
            count(self._worker.redis, Action.FENCED)
            count(self._worker.redis, Action.LEASES_LOST)
            raise Superseded("another worker took over")
        self._end(EndKind.DRAINED)
        count(self._worker.redis, Action.DRAINED)
        raise TryLater("the worker leaves", delay_s=0)

    def _failed(self, error: NSSTrainError) -> None:
        """Retry where the error's class says that it can help; otherwise end the job."""
        number = self._number or 0
        told = self._gate.error(error, self._stage, reason=self._records.reason(self._stage, number))
        logger.warning("stage %s: %s", self._stage, told, extra={"action": "stage.failed"})
        if error.retry is not Retry.NEVER:
            self._end(EndKind.FAILED, error)
            if told.retry is error.retry:
                count(self._worker.redis, f"retried_{error.retry}")
            raise TryLater(str(told), delay_s=_delay_s(error)) from told
        if told is not error:
            self._records.keep_reason(self._stage, number, error)
        self._finish(Outcome.FAILED, error=told)
        raise told

    def _end(self, kind: EndKind, error: NSSTrainError | None = None) -> None:
        self._measure(_ENDS[kind])
        if self._number is None:
            return
        try:
            self._records.end_attempt(self._stage, self._number, kind, error, gate=self._gate)
        except StoreUnavailable:
            logger.warning("why attempt %d ended is not stored", self._number, exc_info=True)

    def _finish(
        self, outcome: Outcome, *, error: NSSTrainError | None = None, reason: str | None = None
    ) -> None:
        if outcome is not Outcome.SUCCEEDED:
            self._measure(StageEnd(outcome.value))
        self._records.finish(outcome, stage=self._stage, error=error, reason=reason, gate=self._gate)
        count_job(self._worker.redis, self._records.job_id, outcome)
        if self._webhook is not None:
            self._worker.announce(self._records.job_id)
        try:
            self._records.tidy()
        except InfrastructureError:
            logger.warning("the job is not tidied up yet; reconcile will do it", exc_info=True)

    def _measure(self, end: StageEnd) -> None:
        """Record how the attempt ended. A delivery that never began one records nothing."""
        if self._number is None:
            return
        seconds = self._gate.seconds(STAGE_SECONDS.name, time.monotonic() - self._began_at)
        if seconds is not None:
            observe(self._worker.redis, STAGE_SECONDS, (self._stage.value, end.value), seconds)
        if end in _FINAL:
            self._worker.done()


def _delay_s(error: NSSTrainError) -> float:
    return NEWER_DELAY_S if isinstance(error, NewerVersion) else RETRY_DELAY_S


__all__ = ["AttemptsExhausted", "DiskFull", "JobEnded", "Superseded", "TryLater", "Worker", "run_stage"]
