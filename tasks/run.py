"""One delivery of one stage: claim, fetch, supervise the child, commit, tear down."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from nss_train.contract import Request, Stage, StageResult
from nss_train.errors import InfrastructureError, NSSTrainError, Retry, StoreUnavailable
from tasks import files
from tasks.inputs import Worker, prepare_folder
from tasks.job import Marker, Outcome, StageMessage
from tasks.lease import Lease
from tasks.progress import Progress
from tasks.records import AttemptsExhausted, JobRecords
from tasks.scratch import scratch
from tasks.settings import child_environment
from tasks.supervisor import StageStopped, StopReason, run_child

logger = logging.getLogger(__name__)

LEASE_HELD_DELAY_S = 5.0
RETRY_DELAY_S = 5.0


class JobEnded(Exception):
    """The job has its outcome: nothing of it runs any more."""


class TryLater(Exception):
    """The stage cannot run here and now; the message is worth another delivery."""

    def __init__(self, why: str, delay_s: float) -> None:
        super().__init__(why)
        self.delay_s = delay_s


def run_stage(message: StageMessage, *, worker: Worker) -> None:
    """Do what a message asks for, once; return when its stage is committed.

    Raises :class:`JobEnded` when the chain must stop, :class:`TryLater` when the message should
    come again, and the stage's own error after recording it as the job's outcome.
    """
    try:
        _deliver(message, JobRecords(worker.store, message.job_id), worker)
    except InfrastructureError as error:
        raise TryLater(str(error), RETRY_DELAY_S) from error


def _deliver(message: StageMessage, records: JobRecords, worker: Worker) -> None:
    if records.is_finished(message.stage):
        return
    ended = records.outcome()
    if ended is not None:
        raise JobEnded(f"job {message.job_id} is {ended.outcome}")
    lease = Lease.acquire(worker.redis, message.job_id, message.stage, ttl_s=worker.settings.lease_ttl_s)
    if lease is None:
        raise TryLater("another worker holds the lease", LEASE_HELD_DELAY_S)
    try:
        Delivery(message.stage, records=records, worker=worker, lease=lease).run()
    finally:
        lease.release()


class Delivery:
    """A delivery that holds the lease."""

    def __init__(self, stage: Stage, *, records: JobRecords, worker: Worker, lease: Lease) -> None:
        self._stage = stage
        self._records = records
        self._worker = worker
        self._lease = lease
        self._renewed_at = time.monotonic()
        self._number: int | None = None

    def run(self) -> None:
        """Run the stage unless it turns out to be committed, and turn every end into a record."""
        try:
            self._raise_if_cancelled()
            if self._records.marker(self._stage) is None:
                self._number = self._claim()
                self._attempt(self._number)
            if self._stage is Stage.SAVE_MODEL:
                self._records.finish(Outcome.SUCCEEDED, stage=self._stage)
        except StageStopped as stopped:
            self._stopped(stopped.reason)
        except NSSTrainError as error:
            self._failed(error)
        except Exception as error:  # the task boundary: a defect ends the job instead of losing it
            logger.exception("stage %s of job %s", self._stage, self._records.job_id)
            self._failed(NSSTrainError(f"Unexpected {type(error).__name__}: {error}"))

    def _claim(self) -> int:
        settings = self._worker.settings
        return self._records.claim(self._stage, worker=self._worker.name, max_attempts=settings.max_attempts)

    def _attempt(self, number: int) -> None:
        committed = False
        try:
            name = f"{self._records.job_id}.{self._stage}.{number}"
            with scratch(self._worker.settings.scratch_dir / name) as folder:
                committed = self._run_child(number, folder)
        finally:
            if not committed:
                self._discard(number)

    def _run_child(self, number: int, folder: Path) -> bool:
        started_at = datetime.now(UTC)
        request, digest = prepare_folder(folder, self._stage, records=self._records, worker=self._worker)
        result = self._supervise(number, folder)
        figures = self._adopt_model(result, folder)
        stored = files.upload(self._worker.store, self._records.keys, self._stage, number, folder / "out")
        self._raise_if_cancelled()
        marker = Marker(
            stage=self._stage,
            attempt=number,
            input_digest=digest,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            files=stored,
            figures=figures,
            model_digest=result.model_digest,
        )
        return self._commit(marker, request)

    def _supervise(self, number: int, folder: Path) -> StageResult:
        progress = Progress(
            redis=self._worker.redis,
            store=self._worker.store,
            job_id=self._records.job_id,
            stage=self._stage,
            attempt=number,
            send_event=self._worker.send_event,
        )
        try:
            return run_child(
                self._stage,
                folder,
                on_event=progress.report,
                on_tick=self._tick,
                tick_s=self._worker.settings.tick_s,
                kill_grace_s=self._worker.settings.kill_grace_s,
                environment=child_environment(),
            )
        finally:
            progress.close()

    def _commit(self, marker: Marker, request: Request) -> bool:
        committed = self._records.commit(marker)
        action = "stage.committed" if committed else "stage.lost_race"
        fields = {"action": action, "job_id": request.job_id, "stage": self._stage, "attempt": marker.attempt}
        logger.info(
            "%s %s of job %s, attempt %d", action, self._stage, request.job_id, marker.attempt, extra=fields
        )
        return committed

    def _adopt_model(self, result: StageResult, folder: Path) -> dict[str, Any]:
        """Move a freshly prepared model to the cache, or count the hit."""
        if result.model_digest is None:
            return result.figures
        made = folder / "out" / "model"
        if made.exists():
            self._worker.models.adopt(result.model_digest, made)
            return result.figures | {"cache": "miss"}
        self._count("model_cache_hits")
        fields = {"action": "model.cache_hit", "job_id": self._records.job_id, "digest": result.model_digest}
        logger.info("cache hit: model %s is prepared already", result.model_digest[:12], extra=fields)
        return result.figures | {"cache": "hit"}

    def _count(self, name: str) -> None:
        try:
            self._worker.redis.hincrby("nss-train:counters", name, 1)
        except RedisError:
            logger.warning("Redis does not answer: %s is not counted", name, exc_info=True)

    def _tick(self) -> StopReason | None:
        settings = self._worker.settings
        if time.monotonic() - self._renewed_at > settings.lease_ttl_s / 3:
            self._renewed_at = time.monotonic()
            if not self._lease.renew():
                return StopReason.LEASE_LOST
        return StopReason.CANCELLED if self._worker.store.exists(self._records.keys.cancel) else None

    def _raise_if_cancelled(self) -> None:
        if self._records.cancellation() is not None:
            raise StageStopped(StopReason.CANCELLED)

    def _stopped(self, reason: StopReason) -> None:
        if reason is StopReason.CANCELLED:
            cancel = self._records.cancellation()
            why = None if cancel is None else f"{cancel.reason} (by {cancel.requested_by})"
            self._records.finish(Outcome.CANCELLED, stage=self._stage, reason=why)
            raise JobEnded(f"job {self._records.job_id} is cancelled")
        raise TryLater(f"stage stopped: {reason}", RETRY_DELAY_S)

    def _failed(self, error: NSSTrainError) -> None:
        """A retry where the error's class says that it can help, else the end of the job."""
        fields = {"action": "stage.failed", "job_id": self._records.job_id, "stage": self._stage}
        logger.warning("stage %s of job %s: %s", self._stage, self._records.job_id, error, extra=fields)
        if error.retry is not Retry.NEVER:
            if self._number is not None:
                self._records.record_failure(self._stage, self._number, error)
            raise TryLater(str(error), RETRY_DELAY_S) from error
        self._records.finish(Outcome.FAILED, stage=self._stage, error=error)
        raise error

    def _discard(self, number: int) -> None:
        try:
            self._records.discard_attempt(self._stage, number)
        except StoreUnavailable:
            # The attempt's own error matters more; what stays is invisible without a marker.
            logger.exception("attempt %d of %s was not cleaned up", number, self._stage)


__all__ = ["AttemptsExhausted", "JobEnded", "TryLater", "Worker", "run_stage"]
