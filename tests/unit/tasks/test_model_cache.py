"""This machine's copies of prepared models, when they are too many."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tasks.model_cache import ModelCache
from tasks.store.local import LocalStore

NO_ROOM = 2**62
MIB = 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four copies of a MiB each: ``a`` was used last a day ago, ``d`` just now."""
    root = tmp_path / "prepared"
    for name, hours_ago in {"b": 3, "a": 24, "d": 0, "c": 2}.items():
        (root / name / "base").mkdir(parents=True)
        (root / name / "base" / "model.safetensors").write_bytes(b"x" * MIB)
        used = time.time() - 3600 * hours_ago
        os.utime(root / name, (used, used))
    return root


@pytest.fixture
def cache(root: Path, tmp_path: Path) -> ModelCache:
    return ModelCache(root, LocalStore(tmp_path / "store"))


def copies(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("[!.]*"))


def test_with_room_nothing_is_removed(cache: ModelCache) -> None:
    assert cache.prune(free_bytes=0, most_bytes=None, in_use=()) == []
    assert cache.prune(free_bytes=0, most_bytes=4 * MIB, in_use=()) == []


def test_what_was_used_longest_ago_goes_first(cache: ModelCache, root: Path) -> None:
    assert cache.prune(free_bytes=0, most_bytes=2 * MIB, in_use=()) == ["a", "b"]
    assert copies(root) == ["c", "d"]


def test_on_a_full_disk_all_go_but_those_in_use_and_the_newest(cache: ModelCache, root: Path) -> None:
    assert cache.prune(free_bytes=NO_ROOM, most_bytes=None, in_use=["b"]) == ["a", "c"]
    assert copies(root) == ["b", "d"]


def test_a_copy_that_is_fetched_again_counts_as_used(cache: ModelCache) -> None:
    cache.fetch("a")
    assert cache.prune(free_bytes=0, most_bytes=3 * MIB, in_use=()) == ["b"]


def test_what_a_killed_worker_left_is_removed_when_it_is_old(cache: ModelCache, root: Path) -> None:
    for name, days_ago in {".fetch-old": 3, ".fetch-new": 0}.items():
        (root / name).mkdir()
        began = time.time() - 86400 * days_ago
        os.utime(root / name, (began, began))
    cache.prune(free_bytes=0, most_bytes=None, in_use=())
    assert not (root / ".fetch-old").exists()
    assert (root / ".fetch-new").exists()


def test_workers_of_one_machine_make_room_at_the_same_time(cache: ModelCache, root: Path) -> None:
    for n in range(300):
        shutil.copytree(root / "a", root / f"a{n}", copy_function=os.link)
    prune = partial(cache.prune, free_bytes=NO_ROOM, most_bytes=0, in_use=())
    with ThreadPoolExecutor() as workers:
        asked = [workers.submit(prune) for _ in range(8)]
    assert {name for one in asked for name in one.result()} >= {"a", "b", "c", "a0", "a299"}
    assert copies(root) == ["d"]
