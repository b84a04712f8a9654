"""The watchdog of a pool's process: it outlives it by a moment, and then ends the sessions it was told of.

The kernel kills a stage's process with its worker, but not that process's own children.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tasks.execution.processes import session_reaper


class Watchdog:
    """A process that serves all stages of this one, started with the first, and again if it was killed.

    One for each stage would start Python four times a job.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def watching(self, session: int) -> Iterator[None]:
        """Have a session ended if this process dies inside the block."""
        if not self._hears(session_reaper.WATCH, session):
            self._restart()
            self._hears(session_reaper.WATCH, session)
        try:
            yield
        finally:
            self._hears(session_reaper.FORGET, session)

    def close(self) -> None:
        """End the watchdog, which is to end no session any more."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _restart(self) -> None:
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", session_reaper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _hears(self, word: str, session: int) -> bool:
        """Tell the process something; return whether it is there to hear it."""
        if self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(f"{word}{session}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True
