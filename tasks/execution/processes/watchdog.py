"""The watchdog of a pool's process: it outlives it by a moment, and then ends the sessions it was told of.

The kernel kills a stage's process with its worker, but not that process's own children.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from tasks.execution.processes import session_reaper


class Watchdog:
    """A process that serves all stages of this one, started with the first, and again if it was killed.

    One for each stage would start Python four times a job.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions = set[int]()

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
        self._sessions.add(session)
        self._tell(session_reaper.WATCH, session)
        try:
            yield
        finally:
            self._sessions.discard(session)
            self._tell(session_reaper.FORGET, session)

    def close(self) -> None:
        """End the watchdog, which is to end no session any more."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _tell(self, word: str, session: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(BrokenPipeError):  # it was killed a moment ago
                self._write(self._process, f"{word}{session}\n")
                return
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", session_reaper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._write(self._process, "".join(f"{session_reaper.WATCH}{one}\n" for one in self._sessions))

    @staticmethod
    def _write(process: subprocess.Popen[bytes], text: str) -> None:
        if process.stdin is None:
            raise TypeError("a watchdog has a pipe")
        process.stdin.write(text.encode())
        process.stdin.flush()
