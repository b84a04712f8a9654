"""The attempts at a job's stages in the store: who claimed one, how it ended, and which was committed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

from nss_train import errors
from nss_train.contract import Frozen, Stage
from nss_train.errors import NSSTrainError, Problem
from tasks.jobs import versioning
from tasks.jobs.documents import AttemptEnd, Claim, EndKind, StageCommit
from tasks.jobs.gate import OPEN, Gate
from tasks.jobs.keys import Keys
from tasks.store.base import Store

KEPT_OF_AN_ATTEMPT = ("claim.json", "ending.json", "log.txt")

Document = TypeVar("Document", bound=Frozen)


class AttemptsExhausted(NSSTrainError):
    """A stage was claimed as often as the operator allows and never ended."""


class AttemptRepository:
    """The claims, endings and commits of one job's stages."""

    def __init__(self, store: Store, job_id: str) -> None:
        self.store = store
        self.keys = Keys(job_id)
        self.job_id = job_id

    def marker(self, stage: Stage) -> StageCommit | None:
        return self.read(self.keys.marker(stage), StageCommit)

    def attempts(self, stage: Stage) -> list[int]:
        """Return the numbers of the attempts claimed so far, ascending."""
        names = self.store.children(self.keys.attempts(stage))
        return sorted(int(name) for name in names if name.isdecimal())

    def claim(
        self,
        stage: Stage,
        *,
        worker: str,
        max_attempts: int,
        position: int = 0,
        token: str = "",
        gate: Gate = OPEN,
    ) -> int:
        """Take the next attempt number, the fencing token of all that the attempt writes.

        Raises :class:`AttemptsExhausted` when ``max_attempts`` attempts began after the same ``position`` and
        got no further. Attempts that ended for reasons outside the job do not count.
        """
        while True:
            claims = self.claims(stage)
            mine = [claim.attempt for claim in claims if token and claim.token == token]
            if mine:
                return mine[0]  # the answer to the first try was lost on the way
            if self._spent(stage, claims, position) >= max_attempts:
                raise self._exhausted(stage, len(claims))
            number = max(self.attempts(stage), default=0) + 1
            claim = Claim(
                attempt=number,
                worker=worker,
                token=token,
                position=position,
                claimed_at=gate.began(datetime.now(UTC)),
            )
            if self.store.put_if_absent(self.keys.claim(stage, number), encode(claim)):
                return number

    def claims(self, stage: Stage) -> list[Claim]:
        """Return the claims of a stage so far, in order."""
        found = (self.read(self.keys.claim(stage, number), Claim) for number in self.attempts(stage))
        return [claim for claim in found if claim is not None]

    def end_attempt(
        self,
        stage: Stage,
        number: int,
        kind: EndKind,
        error: NSSTrainError | None = None,
        *,
        gate: Gate = OPEN,
    ) -> None:
        """Record why an attempt committed nothing: all of it for workers, and what may be published."""
        told = None if error is None else gate.error(error, stage, reason=self.reason(stage, number))
        if told is not error:
            self.keep_reason(stage, number, error)
        ending = AttemptEnd(
            attempt=number,
            ended_at=gate.ended(datetime.now(UTC)),
            kind=kind,
            retry=None if told is None or told is not error else told.retry,
            error=None if told is None else errors.to_json(told),
        )
        self.store.write(self.keys.ending(stage, number), encode(ending))

    def keep_reason(self, stage: Stage, number: int, error: NSSTrainError | None) -> None:
        """Record why an attempt failed below ``private/``, and in the private log that its operator reads."""
        if error is None:
            return
        reason = self.reason(stage, number)
        ending = AttemptEnd(
            attempt=number,
            ended_at=datetime.now(UTC),
            kind=EndKind.FAILED,
            retry=error.retry,
            error=errors.to_json(error),
            reason=reason,
        )
        self.store.write(self.keys.private_ending(stage, number), encode(ending))
        key = self.keys.private_log(stage, number)
        try:
            log = self.store.read(key)
        except KeyError:
            log = b""
        self.store.write(key, log + f"\n{reason}: {error}\n".encode(errors="replace"))

    def reason(self, stage: Stage, number: int) -> str:
        """Return the id by which a failure is found: in its published error, and in the private log."""
        return f"{self.job_id}.{stage}.{number}"

    def endings(self, stage: Stage) -> list[AttemptEnd]:
        """Return why earlier attempts ended, in order, in the form for workers."""
        found = (
            self.read(self.keys.private_ending(stage, number), AttemptEnd)
            or self.read(self.keys.ending(stage, number), AttemptEnd)
            for number in self.attempts(stage)
        )
        return [ending for ending in found if ending is not None]

    def told_endings(self, stage: Stage) -> list[AttemptEnd]:
        """Return why earlier attempts ended, in order, in the published form."""
        found = (self.read(self.keys.ending(stage, number), AttemptEnd) for number in self.attempts(stage))
        return [ending for ending in found if ending is not None]

    def _spent(self, stage: Stage, claims: list[Claim], position: int) -> int:
        """Count the attempts that began after this position and that nothing outside the job ended."""
        here = {claim.attempt for claim in claims if claim.position == position}
        free = {ending.attempt for ending in self.endings(stage) if ending.is_free} if here else set()
        return len(here - free)

    def _exhausted(self, stage: Stage, attempts: int) -> AttemptsExhausted:
        problems = [
            Problem(field=f"attempt {ending.attempt}", value=error["type"], remedy=error["message"])
            for ending in self.told_endings(stage)
            if (error := ending.error) is not None
        ]
        message = f"Stage {stage} was started {attempts} times and never ended."
        return AttemptsExhausted(message, problems, public=True)

    def discard_attempt(self, stage: Stage, number: int) -> None:
        """Delete what an attempt wrote, unless it is committed.

        Its claim stays (a number is never given out twice), and so do its ending and its log.
        """
        marker = self.marker(stage)
        if marker is not None and marker.attempt == number:
            return
        for folder in (self.keys.attempt(stage, number), self.keys.private_attempt(stage, number)):
            for key in list(self.store.list(f"{folder}/")):
                if key.removeprefix(f"{folder}/") not in KEPT_OF_AN_ATTEMPT:
                    self.store.delete(key)

    def read(self, key: str, kind: type[Document]) -> Document | None:
        """Return a document of the job, or ``None`` where there is none."""
        try:
            return versioning.read(kind, self.store.read(key), what=f"The store's {key}")
        except KeyError:
            return None


def encode(document: Frozen) -> bytes:
    return document.model_dump_json(indent=1).encode()
