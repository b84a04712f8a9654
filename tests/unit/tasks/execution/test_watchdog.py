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
import sys, time
from tasks.execution.processes.watchdog import Watchdog
from contextlib import ExitStack
watchdog, inside = Watchdog(), ExitStack()
kept, ended = map(int, sys.argv[1:])
inside.enter_context(watchdog.watching(kept))
with watchdog.watching(ended):
    pass
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


def test_a_killed_owner_s_sessions_end_but_for_those_that_had_ended_before() -> None:
    with session() as kept, session() as ended:
        command = [sys.executable, "-c", OWNER, str(kept), str(ended)]
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


@pytest.mark.parametrize("session_began", ["before", "after"])
def test_a_killed_watchdog_is_replaced(session_began: str) -> None:
    with Watchdog() as watchdog, session() as one, session() as other, watchdog.watching(one):
        (first,) = reapers()
        if session_began == "after":
            first.kill()
            first.wait()
        with watchdog.watching(other):
            if session_began == "before":
                first.kill()
                first.wait()
        (second,) = reapers()
        assert second != first
        # Its owner's pipe closes, as if the owner had died.
        process = watchdog._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
        assert not alive(one)
        assert alive(other)
