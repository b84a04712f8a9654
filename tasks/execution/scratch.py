"""The folder of an attempt on the worker's disk, and what a killed worker left there."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import psutil

from tasks.permissions import make_folder

logger = logging.getLogger(__name__)

OWNER = "owner.json"
_START_TOLERANCE_S = 1.0


@contextmanager
def scratch(folder: Path, *, on_left: Callable[[str], None] = logger.error) -> Iterator[Path]:
    """Yield an empty stage folder with ``in`` and ``out``, removed at the end whatever happens.

    ``on_left`` is called with what could not be released.
    """
    rmtree(folder, ignore_errors=True)
    try:
        for part in ("in", "out"):
            make_folder(folder / part)
        me = psutil.Process()
        owner = {"host": platform.node(), "pid": me.pid, "started": me.create_time()}
        (folder / OWNER).write_text(json.dumps(owner), encoding="utf-8")
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        _check_released(folder, on_left)


def _check_released(folder: Path, on_left: Callable[[str], None]) -> None:
    for process in _working_in(folder):
        on_left(f"process {process.pid} still works in {folder.name}")
    if folder.exists():
        on_left(f"{folder.name} could not be removed")


def sweep(scratch_dir: Path) -> list[str]:
    """Remove folders whose owner is dead, end the processes that still work in them; return their names."""
    if not scratch_dir.is_dir():
        return []
    left = [folder for folder in sorted(scratch_dir.iterdir()) if folder.is_dir() and not _is_owned(folder)]
    for folder in left:
        for process in _working_in(folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        rmtree(folder, ignore_errors=True)
        fields = {"action": "scratch.swept", "folder": folder.name}
        logger.warning("removed %s, which a killed worker left", folder.name, extra=fields)
    return [folder.name for folder in left]


def _is_owned(folder: Path) -> bool:
    """Tell whether the process that made the folder lives; a pid alone may be reused by now."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        if owner["host"] != platform.node():
            return True  # on a shared disk: not ours to judge
        process = psutil.Process(owner["pid"])
        started, is_dead = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess as gone:
        return _answers(gone.pid)
    except (OSError, ValueError, KeyError):
        return False
    # In a container without an init process the children of a killed worker are not reaped.
    return not is_dead and bool(abs(started - owner["started"]) < _START_TOLERANCE_S)


def _answers(pid: int) -> bool:
    """Tell whether such a process exists: /proc may hide a worker, which keeps its memory to itself."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def _working_in(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            yield process
