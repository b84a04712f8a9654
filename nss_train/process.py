"""The first steps of a child process, and its last: end with its parent, keep data private, obey limits."""

from __future__ import annotations

import atexit
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
PRIVATE_UMASK = 0o077
"""Umask for folders 0700 and files 0600: they hold tables and what is trained on them."""
_LAST_SECONDS = 5
"""Seconds of CPU time between SIGXCPU and SIGKILL."""


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies; leave at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")


def default_signals() -> None:
    """Restore default signal handling, whatever an ancestor set: a trainer must be stoppable."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def keep_memory_to_itself() -> None:
    """Leave no core dump, and let no other process of this user read this one's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    open_memory(opened=False)


def open_memory(*, opened: bool) -> None:
    """Let processes of the same user read and change this one's memory, or not."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, int(opened))


def keep_files_to_itself() -> None:
    """Let what this process and its children create be read and written by its own user alone."""
    os.umask(PRIVATE_UMASK)


def limit_cpu(seconds: int) -> None:
    """Let the kernel end this process after ``seconds`` of CPU time, whatever it is doing.

    A regular expression, a decoder or a solver cannot be interrupted from Python; SIGXCPU ends them all.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + _LAST_SECONDS))


def limit_memory(data_bytes: int) -> None:
    """Make allocations beyond ``data_bytes`` raise ``MemoryError``, to spare the machine's other processes.

    RLIMIT_DATA counts private writable memory. RLIMIT_AS would count what is only mapped or reserved as
    well: files of examples, thread arenas, and with CUDA the whole address space of the devices; no
    process that loads torch could run under it.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


def leave(code: int) -> NoReturn:
    """End this process as the interpreter would, except that its modules are not dismantled.

    Taking torch and what it loads apart takes a second, in which nothing happens. Threads are awaited, exit
    functions called and streams flushed first, as :mod:`multiprocessing` does it for its children.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    flush()
    os._exit(code)


def flush() -> None:
    """Write what Python and the libraries in C have printed and still hold."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)


def show_as(words: Sequence[str]) -> None:
    """Show ``words`` as this process's command line, cut to the room that its own left."""
    if sys.platform != "linux":
        return
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    # Fields 48 and 49 of proc_pid_stat(5), of which the first two are cut off.
    start, end = int(fields[45]), int(fields[46])
    text = "\0".join(words).encode()[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
