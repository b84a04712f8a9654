"""The handling of Ctrl-C: a message says what it ended, and what it left alone."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nss_train.errors import InfrastructureError

if TYPE_CHECKING:
    from tasks.client import Client

EXIT_CODE = 130
"""Exit code as a shell has it: 128 and the number of SIGINT."""
CANCEL_S = 15.0
"""Longest wait for a cancellation; a stage ends within a tick and a grace period, 2.5 s by default."""


class Interrupted(Exception):
    """A person ended the command; the text says what became of its work."""


@contextmanager
def saying(text: str) -> Iterator[None]:
    """Raise :class:`Interrupted` with ``text`` when the command is interrupted inside the block."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {text}") from None


@contextmanager
def cancelling(client: Client, job_id: str) -> Iterator[None]:
    """Cancel the job if a person ends the command: no one else would wait for it."""
    try:
        yield
    except KeyboardInterrupt:
        became = cancel(client, job_id)
        raise Interrupted(f"interrupted; job {job_id} is {became}, and everything is taken down") from None


def cancel(client: Client, job_id: str) -> str:
    """Cancel an unwanted job; return the state that it comes to, which is stored before workers go."""
    try:
        client.cancel(job_id, reason="interrupted", requested_by=getpass.getuser())
        *_, last = client.watch(job_id, timeout_s=CANCEL_S)
    except (InfrastructureError, TimeoutError) as error:
        return f"left as it was, because it could not be cancelled: {error}"
    return last.state.value
