"""The watchdog of a process whose stages must not outlive it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tasks.execution.processes import session_reaper
from tasks.execution.processes.watchdog import Watchdog
from tests.unit.tasks.execution.processes import alive

OWNER = """
import psutil, sys, time
from tasks.execution.processes.watchdog import Watchdog

def kill(when):
    if when == sys.argv[3]:
        (reaper,) = psutil.Process().children()
        reaper.kill()
        reaper.wait()

kept, ended = map(int, sys.argv[1:3])
watchdog = Watchdog()
with watchdog.watching(ended):
    kill("while it watches")
kill("between two sessions")
with watchdog.watching(kept):
    print("watching", flush=True)
    time.sleep(600)
"""


@contextmanager
def session() -> Iterator[int]:
    """Run a process that leads a session."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def reapers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if session_reaper.__file__ in child.cmdline()]


@pytest.mark.parametrize("killed", ["never", "while it watches", "between two sessions"])
def test_a_killed_owner_s_session_ends_but_none_that_had_ended_before(killed: str) -> None:
    with session() as kept, session() as ended:
        command = [sys.executable, "-c", OWNER, str(kept), str(ended), killed]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "watching\n"
            owner.kill()
        deadline = time.monotonic() + 10
        while alive(kept) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(kept)
        assert alive(ended)


def test_one_process_watches_all_stages() -> None:
    with Watchdog() as watchdog, session() as one, session() as other:
        with watchdog.watching(one):
            pass
        first = reapers()
        with watchdog.watching(other):
            assert reapers() == first
        assert len(first) == 1
    assert not reapers()
