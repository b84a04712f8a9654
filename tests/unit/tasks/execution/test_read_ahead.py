"""A base model is read from the disk before its training asks for it."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest
from redis import Redis

from tasks.execution import inputs
from tasks.execution.inputs import Worker
from tasks.execution.read_ahead import read_ahead
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.missing import missing

BYTES = 64 * 2**20


def resident(path: Path) -> float:
    """Return the share of a file's pages that are in memory, as mincore(2) has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * (-(-len(mapped) // mmap.PAGESIZE)))()
        start = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), pages)
        del start
        assert not failed, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in pages) / len(pages)


def test_weights_that_are_not_in_memory_are_read(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    weights = tmp_path / "base" / "model.safetensors"
    with weights.open("wb") as file:
        file.write(os.urandom(BYTES))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(weights) > 0.5:
        raise missing("this file system keeps its files in memory")
    read_ahead(tmp_path).join(30)
    deadline = time.monotonic() + 30
    while resident(weights) <= 0.9 and time.monotonic() < deadline:
        time.sleep(0.1)  # the kernel reads what was asked for, in its own order
    assert resident(weights) > 0.9


def test_a_model_that_goes_meanwhile_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").symlink_to(tmp_path / "gone")
    thread = read_ahead(tmp_path)
    thread.join(30)
    assert not thread.is_alive()


def test_a_training_s_model_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(inputs, "read_ahead", asked.append)
    settings = Settings.model_validate({"home": tmp_path / "home"})
    (settings.prepared_dir / "abc").mkdir(parents=True)
    worker = Worker(name="w", store=LocalStore(tmp_path), redis=Redis(), settings=settings, send_event=print)
    inputs._provide_model(tmp_path / "model", "abc", worker)
    assert asked == [(tmp_path / "model").readlink()] == [settings.prepared_dir / "abc"]
