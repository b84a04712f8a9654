"""Answers to submissions that the consumer refuses: a failed outcome under the message's id.

The consumer serves all messages of a worker, so that it neither writes nor waits: a thread of its own writes
the answers, from a short queue. In a flood the first are answered, and each refusal is in the log. An answer
takes no id that is in use, and no more of the store than a submission that comes in and is wrong.
"""

from __future__ import annotations

import logging
import queue
import time
from contextlib import suppress
from threading import Thread

from nss_train.errors import NSSTrainError, ParameterError, Problem
from tasks.broker.message_guard import SUBMIT, named_of
from tasks.jobs.ids import OF_A_KEY, is_job_id
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings
from tasks.store.open import open_store
from tasks.submission.refusals import leave_refusal

logger = logging.getLogger(__name__)

MOST_WAITING = 256
"""Most answers that wait to be written: more than a person's mistake makes, and a few kilobytes."""
PAUSE_S = 0.2
"""Pause after each answer. A flood then costs the consumer 1.7 ms for each message, as without answers; 2.9
ms with a pause of 0.05 s."""


class Answers:
    """The answers of one worker, which are written one after the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue(MOST_WAITING)
        self._thread: Thread | None = None

    def refused(self, message: object, why: str) -> None:
        """Answer a message if it is a submission with an id that a job can have. Never waits."""
        job_id = submission_id(message)
        if job_id is None:
            return
        try:
            self._waiting.put_nowait((job_id, why))
        except queue.Full:
            return  # the log has the refusal
        if self._thread is None:  # not before the pool has forked: a thread is not copied
            self._thread = Thread(target=self._write, name="answers", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Forget the answers that wait, and end after the one that is being written."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _write(self) -> None:
        # A connection of this thread's own.
        store = open_store(self._settings)
        while (answer := self._waiting.get()) is not None:
            job_id, why = answer
            try:
                leave_refusal(JobRepository(store, job_id), table="", error=_refusal(why))
            except NSSTrainError as error:  # one line each: there may be many senders
                logger.warning("job %s: its refusal is not stored: %s", job_id, error.message)
            time.sleep(PAUSE_S)


def submission_id(message: object) -> str | None:
    """Return the id under which the sender of a submission looks; ``None`` for any other message."""
    named = named_of(message)
    job_id = named.get("id")
    if named.get("task") != SUBMIT or not isinstance(job_id, str) or not is_job_id(job_id):
        return None
    # No message has such an id of its own; it would belong to an idempotency key.
    return None if job_id.startswith(OF_A_KEY) else job_id


def _refusal(why: str) -> ParameterError:
    problem = Problem(field="message", value=None, remedy=f"{why}; send it again without that")
    return ParameterError("The message is refused.", [problem])
