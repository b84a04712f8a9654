"""The client for other services: submit, status, watch, cancel, fetch, list. Imports no torch or pandas."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from redis.exceptions import RedisError

from nss_train.contract import Stage
from nss_train.errors import ParameterError, Problem
from nss_train.extras import require
from nss_train.text.names import is_dataset
from tasks.app import App, make_app
from tasks.broker.lease import lease_key
from tasks.execution.model_cache import ModelCache
from tasks.jobs.documents import CancelRequest, JobState, Outcome
from tasks.jobs.ids import check_beginning, is_job_id
from tasks.jobs.privacy.charges import ACCOUNTANT, open_ledger
from tasks.jobs.repository import JobRepository
from tasks.jobs.stage_files import download
from tasks.jobs.submission import ConfigSource, Submission
from tasks.jobs.table import check_table_file, is_uri
from tasks.jobs.texts import check_texts
from tasks.jobs.versioning import Unreadable
from tasks.scheduling import admission
from tasks.scheduling.admission import Place
from tasks.settings import Settings
from tasks.status import JobStatus, read_status
from tasks.submission import submit
from tasks.submission.foreseen import foreseen
from tasks.submission.submit import check_request

if TYPE_CHECKING:
    from tasks.jobs.privacy.ledger import DatasetLedger

logger = logging.getLogger(__name__)

POLL_S = 0.5
MOST_MATCHES = 10
"""Most jobs that are named when several ids begin alike."""

_Fields = ParamSpec("_Fields")


def _with_keywords_of(
    fields: Callable[_Fields, Submission],
) -> Callable[[Callable[[Client, Submission], str]], Callable[Concatenate[Client, _Fields], str]]:
    """Let a method of a submission take the submission's fields as its keywords, so that it lists none."""

    def decorate(
        method: Callable[[Client, Submission], str],
    ) -> Callable[Concatenate[Client, _Fields], str]:
        @wraps(method)
        def call(self: Client, /, *args: _Fields.args, **given: _Fields.kwargs) -> str:
            return method(self, Submission.unchecked(*args, **given))

        itself, _ = signature(method).parameters.values()
        shown = signature(method).replace(parameters=[itself, *signature(fields).parameters.values()])
        call.__signature__ = shown  # type: ignore[attr-defined]
        return call

    return decorate


class Client:
    """A client of one deployment; cheap to make, connects on first use."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._app: App = make_app(settings or Settings())

    @_with_keywords_of(Submission)
    def submit(self, submission: Submission) -> str:
        """Enqueue a job and return its id; the same key again is the same job.

        The keywords are the fields of :class:`Submission`. ``table`` is a local CSV, Parquet or JSON Lines
        file, or an ``s3://`` URI that the operator allows. ``family`` states the base model's family if its
        name does not show it. ``ranks`` processes train together (0 leaves it to the worker); with ``fsdp``
        each of them holds a part of the base model. Tenants share the workers fairly; within a tenant the
        smaller ``priority`` begins first. ``webhook`` is notified of the job's outcome, and with
        ``webhook_progress`` of each committed stage. A private job on a dataset with an owner needs the
        ``dataset_token`` (by default the setting of this name); only a proof for this job is sent.

        Raises :class:`~nss_train.errors.DataError` or :class:`~nss_train.errors.ParameterError` with every
        problem of a bad request.
        """
        token = submission.dataset_token or self._app.settings.dataset_token.get_secret_value()
        return submit.submit(self._app, submission.model_copy(update={"dataset_token": token}))

    def foreseen_warnings(self, *, table: Path | str, config: ConfigSource = None) -> list[str]:
        """Return the warnings that config and table give before a job runs; its status has all of them.

        Raises the errors of :meth:`submit`.
        """
        submission = Submission.unchecked(table=table, config=config)
        checked = check_request(submission, self._app.settings.table_limits)
        file = None if is_uri(table) else Path(table)
        models = self._app.settings.model_policy
        return list(foreseen(file, checked, submit.given_of(config), models=models))

    def find(self, beginning: str) -> str:
        """Return the id of the only job that begins like this; a whole id is its own beginning.

        Raises :class:`~nss_train.errors.ParameterError` when there is none, or several; then it names them.
        """
        if is_job_id(beginning) and self.records(beginning).is_submitted():
            return beginning
        check_beginning(beginning)
        found = [job_id for job_id in self._ids() if job_id.startswith(beginning)]
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(beginning, found)
        remedy = "no such job in this store; `nss-train list` shows those that are there"
        raise ParameterError("Unknown job.", [Problem(field="job_id", value=beginning, remedy=remedy)])

    def status(self, job_id: str) -> JobStatus:
        """Return the job's status; raise :class:`~nss_train.errors.ParameterError` for an unknown id."""
        found = read_status(self.records(job_id))
        if found.state is not JobState.QUEUED:
            return found
        return found.model_copy(update={"place": self._place(found)})

    def watch(self, job_id: str, *, timeout_s: float | None = None) -> Iterator[JobStatus]:
        """Yield the job's status whenever it changes, until it ends; ``TimeoutError`` after ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        last = None
        while last is None or not last.ended:
            now = self.status(job_id)
            if now != last:
                yield now
                last = now
            elif deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} is still {now.state} after {timeout_s} s")
            else:
                time.sleep(POLL_S)

    def cancel(self, job_id: str, *, reason: str, requested_by: str) -> JobState:
        """Ask for cancellation and return the state now; a job that has ended stays as it is.

        A job that no worker holds is cancelled at once; a worker ends its processes first. Raises
        :class:`~nss_train.errors.ParameterError` for a text that cannot be written as UTF-8.
        """
        check_texts(reason=reason, requested_by=requested_by)
        records = self.records(job_id)
        records.request()
        if records.outcome() is None:
            cancel = CancelRequest(reason=reason, requested_by=requested_by, requested_at=datetime.now(UTC))
            records.request_cancel(cancel)
            if not self._is_worked_on(job_id):
                records.finish(Outcome.CANCELLED, reason=str(records.cancellation() or cancel))
        return self.status(job_id).state

    def logs(
        self, job_id: str, *, stage: Stage | None = None, attempt: int | None = None, private: bool = False
    ) -> str:
        """Return the end of a stage's output, by default of the last stage and attempt that has any.

        For a strictly private job this is what may be published; ``private`` returns all of it, for the
        operator.
        """
        records = self.records(job_id)
        records.request()
        key = records.keys.private_log if private else records.keys.log
        for one in [stage] if stage else reversed(Stage):
            for number in [attempt] if attempt else reversed(records.attempts(one)):
                try:
                    return self._app.store.read(key(one, number)).decode()
                except KeyError:
                    continue
        remedy = "nothing is printed yet, or there is no such stage or attempt; see `nss-train status`"
        raise ParameterError("No log.", [Problem(field="job_id", value=job_id, remedy=remedy)])

    def _place(self, queued: JobStatus) -> Place | None:
        """Return a job's place in line; ``None`` if Redis is down, or its users predate this permission."""
        try:
            return admission.place(self._app.redis, queued.job_id, queued.tenant)
        except RedisError:
            return None

    def _is_worked_on(self, job_id: str) -> bool:
        """Tell whether a worker holds a stage. Unknown means yes: a worker or reconcile ends the job then."""
        try:
            return any(self._app.redis.exists(lease_key(job_id, stage)) for stage in Stage)
        except RedisError:
            return True

    def fetch(self, job_id: str, folder: Path) -> Path:
        """Write the artifacts of a succeeded job into ``folder``, each file verified by its SHA-256."""
        records = self.records(job_id)
        state = self.status(job_id).state
        marker = records.marker(Stage.SAVE_MODEL)
        if state is not JobState.SUCCEEDED or marker is None:
            remedy = f"the job is {state}; artifacts exist once it has succeeded"
            raise ParameterError("Nothing to fetch.", [Problem(field="job_id", value=job_id, remedy=remedy)])
        download(self._app.store, marker.files, folder, ("*",))
        return folder

    def base_model(self, job_id: str) -> Path:
        """Return the path of this machine's copy of the job's base model; it is read-only."""
        marker = self.records(job_id).marker(Stage.LOAD_MODEL)
        if marker is None or marker.model_digest is None:
            problem = Problem(
                field="job_id", value=job_id, remedy="the job has no base model yet; wait for it"
            )
            raise ParameterError("No base model.", [problem])
        cache = ModelCache(self._app.settings.prepared_dir, self._app.store)
        return cache.fetch(marker.model_digest) / "base"

    def ledger(self, dataset: str) -> DatasetLedger:
        """Return a dataset's ledger: its budget, and what its private jobs cost.

        Raises :class:`~nss_train.errors.NotInstalled` where the accountant is not installed.
        """
        return open_ledger(self._app.store, dataset)

    def ledgers(self) -> Iterator[str]:
        """Return the names of all ledgers, declared and drawn."""
        return filter(is_dataset, self._app.store.children("privacy/"))

    def rename_ledger(self, dataset: str, *, to: str | None = None) -> str:
        """Rename a ledger to a drawn or a declared name; see :func:`tasks.jobs.privacy.renaming.rename`."""
        require(ACCOUNTANT)
        from tasks.jobs.privacy.renaming import rename

        return rename(self._app.store, dataset, to=to)

    def list(self) -> Iterator[JobStatus]:
        """Yield the status of every job in the store that is completely submitted and can be read."""
        for job_id in self._ids():
            if self.records(job_id).is_submitted():
                yield from self._readable(job_id)

    def _ids(self) -> Iterator[str]:
        return filter(is_job_id, self._app.store.children("jobs/"))

    def _readable(self, job_id: str) -> Iterator[JobStatus]:
        try:
            status = self.status(job_id)
        except Unreadable:
            logger.warning(
                "job %s is skipped because one of its documents cannot be read", job_id, exc_info=True
            )
        else:
            yield status

    def records(self, job_id: str) -> JobRepository:
        """Return the repository of a job's documents."""
        return JobRepository(self._app.store, job_id)


def _ambiguous(beginning: str, found: Sequence[str]) -> ParameterError:
    more = f" and {len(found) - MOST_MATCHES} more" if len(found) > MOST_MATCHES else ""
    remedy = (
        f"{len(found)} jobs begin like this: {', '.join(found[:MOST_MATCHES])}{more}; give more of the id"
    )
    return ParameterError("Which job?", [Problem(field="job_id", value=beginning, remedy=remedy)])


__all__ = ["Client", "JobStatus", "Submission", "check_request", "check_table_file"]
