"""A job's documents in the store: typed reads, and the writes that may happen only once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from nss_train import errors
from nss_train.contract import Stage
from nss_train.errors import NSSTrainError, ParameterError, Problem, StoreCorrupt
from tasks.jobs import versioning
from tasks.jobs.attempts import AttemptRepository, encode
from tasks.jobs.documents import (
    CancelRequest,
    JobRequest,
    Outcome,
    OutcomeRecord,
    PrivateFiles,
    StageCommit,
    StoredFile,
    TableFile,
    warnings_among,
)
from tasks.jobs.gate import OPEN, Gate
from tasks.jobs.keys import model_prefix
from tasks.jobs.privacy.charges import Charges
from tasks.jobs.stage_files import Committed
from tasks.store.base import Store
from tasks.telemetry import tracing

logger = logging.getLogger(__name__)

PRIVATE_SINCE = 4
"""First version of markers whose private part has a document of its own."""

DRAWS_SINCE = 4
"""First version that charges by-products when their draw is on record, not when they are committed."""


class JobRepository(AttemptRepository):
    """The documents of one job. Nothing is cached: the store is the truth."""

    def __init__(self, store: Store, job_id: str) -> None:
        super().__init__(store, job_id)
        self.charges = Charges(store, job_id)

    def request(self) -> JobRequest:
        """Return the submission; raise :class:`ParameterError` when there is no such job."""
        found = self.read(self.keys.request, JobRequest)
        if found is None:
            remedy = "no such job in this store; `nss-train list` shows those that are there"
            raise ParameterError("Unknown job.", [Problem(field="job_id", value=self.job_id, remedy=remedy)])
        return found

    def open(self, request: JobRequest) -> None:
        """Record that a submission has begun, so that reconcile knows of it."""
        self.store.write(self.keys.open, request.submitted_at.isoformat().encode())

    def submitted(self, request: JobRequest) -> bool:
        """Record a submission; return ``False`` when one with this id exists already."""
        self.open(request)
        if request.webhook is not None:
            self.store.write(self.keys.webhook_pending, request.submitted_at.isoformat().encode())
        return self.store.put_if_absent(self.keys.request, encode(request))

    def is_submitted(self) -> bool:
        """Tell whether there is a request: a client may have died before it wrote one."""
        return self.store.exists(self.keys.request)

    def opened_at(self) -> datetime | None:
        """Return when the submission began, or ``None`` when the job is tidied up."""
        try:
            return datetime.fromisoformat(self.store.read(self.keys.open).decode())
        except KeyError:
            return None
        except ValueError as error:
            raise versioning.Unreadable(f"The store's {self.keys.open} is no time: {error}") from error

    def table_file(self, request: JobRequest) -> TableFile | None:
        """Return the uploaded table, ``None`` for one at a URI; raise :class:`StoreCorrupt` if it is gone."""
        given = request.table
        if given.sha256 is not None:  # as releases 1 to 3 wrote it
            key = self.keys.old_table(given.sha256)
            return TableFile(name=given.name, key=key, sha256=given.sha256, bytes=given.bytes or 0)
        if given.input is None:
            return None
        found = self.read(self.keys.table_file(given.input), TableFile)
        if found is None:
            raise StoreCorrupt(f"{self.keys.table_file(given.input)} is gone from the store.")
        return found

    def put_table(self, name: str, file: TableFile) -> None:
        """Write the description of an uploaded table."""
        self.store.write(self.keys.table_file(name), encode(file))

    def drop_table(self, name: str) -> None:
        """Delete an uploaded table that no request names."""
        for key in (self.keys.table(name), self.keys.table_file(name)):
            self.store.delete(key)

    def keep_private(self, stage: Stage, number: int, files: PrivateFiles) -> None:
        """Record an attempt's unpublished outputs; this comes before its marker."""
        self.store.write(self.keys.private_files(stage, number), encode(files))

    def committed(self, marker: StageCommit) -> Committed:
        """Return all that a committed stage made; raise :class:`StoreCorrupt` when a part is gone."""
        return Committed(
            files=(*marker.files, *self._private_files(marker)), model_digest=marker.model_digest
        )

    def _private_files(self, marker: StageCommit) -> tuple[StoredFile, ...]:
        if marker.version < PRIVATE_SINCE:
            return ()
        key = self.keys.private_files(marker.stage, marker.attempt)
        found = self.read(key, PrivateFiles)
        if found is None:
            raise StoreCorrupt(f"{key} is gone from the store.")
        return found.files

    def outcome(self) -> OutcomeRecord | None:
        return self.read(self.keys.outcome, OutcomeRecord)

    def cancellation(self) -> CancelRequest | None:
        return self.read(self.keys.cancel, CancelRequest)

    def is_finished(self, stage: Stage) -> bool:
        """Tell whether a delivery of this stage has nothing left to do; costs one read.

        The last stage is finished when the job has its outcome, so that another delivery writes the outcome
        if a worker died between the two.
        """
        if stage is Stage.SAVE_MODEL:
            return self.outcome() is not None
        return self.marker(stage) is not None

    def commit(self, marker: StageCommit) -> bool:
        """Make an attempt's outputs those of the stage; return ``False`` when another attempt was first."""
        if self.store.put_if_absent(self.keys.marker(marker.stage), encode(marker)):
            return True
        found = self.marker(marker.stage)
        # It is ours when the answer to an earlier try was lost on the way.
        return found is not None and found.attempt == marker.attempt

    def is_fenced(self, stage: Stage, number: int) -> bool:
        """Tell whether another worker has taken over what attempt ``number`` works on."""
        if max(self.attempts(stage), default=0) > number or self.outcome() is not None:
            return True
        return self.marker(stage) is not None

    def request_cancel(self, cancel: CancelRequest) -> bool:
        return self.store.put_if_absent(self.keys.cancel, encode(cancel))

    def finish(
        self,
        outcome: Outcome,
        *,
        stage: Stage | None = None,
        error: NSSTrainError | None = None,
        reason: str | None = None,
        gate: Gate = OPEN,
    ) -> bool:
        """End the job; return ``False``, and change nothing, when it had ended already.

        ``error`` is the error as it may be published.
        """
        record = OutcomeRecord(
            outcome=outcome,
            finished_at=gate.ended(datetime.now(UTC)),
            stage=stage,
            error=None if error is None else errors.to_json(error),
            reason=reason,
            warnings=self._warnings(),
        )
        first = self.store.put_if_absent(self.keys.outcome, encode(record)) or self.outcome() == record
        fields = {"action": "job.finished", "job_id": self.job_id, "outcome": outcome}
        logger.info(
            "job %s: %s%s", self.job_id, outcome, "" if first else " (had ended before)", extra=fields
        )
        if first:
            tracing.job(self.job_id, lambda: self.request().submitted_at, record.finished_at, outcome=outcome)
        return first

    def _warnings(self) -> tuple[str, ...]:
        prepared = self.marker(Stage.PREPARE_DATA)
        return () if prepared is None else warnings_among(prepared.figures)

    def tidy(self) -> None:
        """Charge an ended job its cost; delete its checkpoints and what no stage committed. Idempotent."""
        self.settle()
        self.store.delete(self.keys.holdout_key)
        for stage in Stage:
            for number in self.attempts(stage):
                self.discard_attempt(stage, number)
        for folder in (self.keys.checkpoints, self.keys.private_checkpoints):
            for key in list(self.store.list(folder)):
                self.store.delete(key)
        self.store.delete(self.keys.open)

    def settle(self) -> bool:
        """Charge the job its cost if it has ended; return whether it has."""
        ended = self.outcome()
        if ended is None:
            return False
        prepared = self.marker(Stage.PREPARE_DATA)
        # Releases before 4 kept no draw: what they committed was drawn.
        released = prepared is not None and prepared.version < DRAWS_SINCE
        self.charges.settle(ended.outcome, by_products=released)
        return True

    def forget(self) -> None:
        """Delete a submission that was never finished."""
        for key in list(self.store.list(f"{self.keys.root}/")):
            self.store.delete(key)
        self.store.delete(self.keys.webhook_pending)
        self.store.delete(self.keys.open)

    def prepared_models(self) -> Iterable[str]:
        """Yield the digests of the complete prepared models in the store."""
        for digest in self.store.children("models/"):
            if self.store.exists(f"{model_prefix(digest)}/manifest.json"):
                yield digest
