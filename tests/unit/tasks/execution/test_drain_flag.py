"""The drain flag is seen by processes that were forked before it was set."""

from __future__ import annotations

import multiprocessing
import threading
import time

from tasks.execution.drain_flag import DrainFlag

FORKED = multiprocessing.get_context("fork")


def test_a_forked_process_sees_a_flag_that_is_set_later() -> None:
    flag, ready, found = DrainFlag(), FORKED.Event(), FORKED.Value("b", 0)

    def look() -> None:
        ready.set()
        found.value = flag.wait(60)

    process = FORKED.Process(target=look)
    process.start()
    assert ready.wait(60)
    flag.set()
    process.join(60)
    assert (process.exitcode, found.value) == (0, 1)


def test_a_wait_ends_early_when_the_flag_is_set_and_late_when_not() -> None:
    flag = DrainFlag()
    assert not flag.wait(0.0)
    assert not flag.is_set()
    threading.Timer(0.05, flag.set).start()
    started = time.monotonic()
    assert flag.wait(60)
    assert time.monotonic() - started < 30
