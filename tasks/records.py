"""A job's documents in the store: typed reads, and the writes that may happen only once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError

from nss_train import errors
from nss_train.contract import Frozen, Stage
from nss_train.errors import InfrastructureError, NSSTrainError, ParameterError, Problem
from tasks.job import Cancel, Claim, Failure, JobRequest, Keys, Marker, Outcome, OutcomeRecord, model_prefix
from tasks.store.base import Store

logger = logging.getLogger(__name__)

Document = TypeVar("Document", bound=Frozen)


class AttemptsExhausted(NSSTrainError):
    """A stage was claimed as often as the operator allows and never ended."""


class JobRecords:
    """The documents of one job. Nothing is cached: the store is the truth."""

    def __init__(self, store: Store, job_id: str) -> None:
        self.store = store
        self.keys = Keys(job_id)
        self.job_id = job_id

    def request(self) -> JobRequest:
        """What was submitted; :class:`ParameterError` when there is no such job."""
        found = self._read(self.keys.request, JobRequest)
        if found is None:
            remedy = "no such job in this store; `nss-train list` shows those that are there"
            raise ParameterError("Unknown job.", [Problem(field="job_id", value=self.job_id, remedy=remedy)])
        return found

    def submitted(self, request: JobRequest) -> bool:
        """Record a submission; ``False`` when one with this id is there already."""
        return self.store.put_if_absent(self.keys.request, _encode(request))

    def marker(self, stage: Stage) -> Marker | None:
        return self._read(self.keys.marker(stage), Marker)

    def outcome(self) -> OutcomeRecord | None:
        return self._read(self.keys.outcome, OutcomeRecord)

    def cancellation(self) -> Cancel | None:
        return self._read(self.keys.cancel, Cancel)

    def is_finished(self, stage: Stage) -> bool:
        """Whether a delivery of this stage has nothing left to do; costs one read.

        The last stage is finished when the job has its outcome, so that a worker that died
        between the two is made up for.
        """
        if stage is Stage.SAVE_MODEL:
            return self.outcome() is not None
        return self.marker(stage) is not None

    def attempts(self, stage: Stage) -> list[int]:
        """Numbers of the attempts claimed so far, ascending."""
        return sorted(int(name) for name in self.store.children(self.keys.attempts(stage)))

    def claim(self, stage: Stage, *, worker: str, max_attempts: int) -> int:
        """Take the next attempt number, the fencing token of all that the attempt writes."""
        while True:
            number = max(self.attempts(stage), default=0) + 1
            if number > max_attempts:
                raise self._exhausted(stage, number - 1)
            claim = Claim(attempt=number, worker=worker, claimed_at=datetime.now(UTC))
            if self.store.put_if_absent(self.keys.claim(stage, number), _encode(claim)):
                return number

    def record_failure(self, stage: Stage, number: int, error: NSSTrainError) -> None:
        """Keep why an attempt ended and comes again."""
        failure = Failure(
            attempt=number, failed_at=datetime.now(UTC), retry=error.retry, error=errors.to_json(error)
        )
        self.store.write(self.keys.failure(stage, number), _encode(failure))

    def failures(self, stage: Stage) -> list[Failure]:
        """Why earlier attempts ended, in their order."""
        found = (self._read(self.keys.failure(stage, number), Failure) for number in self.attempts(stage))
        return [failure for failure in found if failure is not None]

    def _exhausted(self, stage: Stage, attempts: int) -> AttemptsExhausted:
        problems = [
            Problem(field=f"attempt {f.attempt}", value=f.error["type"], remedy=f.error["message"])
            for f in self.failures(stage)
        ]
        return AttemptsExhausted(f"Stage {stage} was started {attempts} times and never ended.", problems)

    def commit(self, marker: Marker) -> bool:
        """Make an attempt's outputs those of the stage; ``False`` when another attempt was first."""
        return self.store.put_if_absent(self.keys.marker(marker.stage), _encode(marker))

    def request_cancel(self, cancel: Cancel) -> bool:
        return self.store.put_if_absent(self.keys.cancel, _encode(cancel))

    def finish(
        self,
        outcome: Outcome,
        *,
        stage: Stage | None = None,
        error: NSSTrainError | None = None,
        reason: str | None = None,
    ) -> bool:
        """End the job; ``False`` when it had ended already, and then nothing changes."""
        record = OutcomeRecord(
            outcome=outcome,
            finished_at=datetime.now(UTC),
            stage=stage,
            error=None if error is None else errors.to_json(error),
            reason=reason,
        )
        first = self.store.put_if_absent(self.keys.outcome, _encode(record))
        fields = {"action": "job.finished", "job_id": self.job_id, "outcome": outcome}
        logger.info(
            "job %s: %s%s", self.job_id, outcome, "" if first else " (had ended before)", extra=fields
        )
        return first

    def discard_attempt(self, stage: Stage, number: int) -> None:
        """Delete what an attempt wrote, but not its claim (a number is never given out twice) and failure."""
        kept = (self.keys.claim(stage, number), self.keys.failure(stage, number))
        for key in list(self.store.list(f"{self.keys.attempt(stage, number)}/")):
            if key not in kept:
                self.store.delete(key)

    def prepared_models(self) -> Iterable[str]:
        """Digests of the complete prepared models in the store."""
        for digest in self.store.children("models/"):
            if self.store.exists(f"{model_prefix(digest)}/manifest.json"):
                yield digest

    def _read(self, key: str, kind: type[Document]) -> Document | None:
        try:
            return kind.model_validate_json(self.store.read(key))
        except KeyError:
            return None
        except ValidationError as error:
            raise InfrastructureError(f"The store's {key} is not a {kind.__name__}: {error}") from error


def _encode(document: Frozen) -> bytes:
    return document.model_dump_json(indent=1).encode()
