"""Copies of prepared models on this machine, when they are too many."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nss_train.errors import StoreCorrupt
from tasks.execution.model_cache import ModelCache
from tasks.store.local import LocalStore

NO_ROOM = 2**62
MIB = 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make four copies of a MiB each: ``a`` was used last a day ago, ``d`` just now."""
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


def test_a_disk_without_room_for_a_folder_is_tidied_up_too(
    cache: ModelCache, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_fields: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert cache.prune(free_bytes=NO_ROOM, most_bytes=None, in_use=()) == ["a", "b", "c"]
    assert [path.name for path in root.iterdir() if path.name.startswith(".gone-")] == []


def test_workers_that_bring_the_same_model_from_another_disk_leave_one_copy(
    cache: ModelCache, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [a_model(tmp_path / f"scratch{n}") for n in range(3)]
    come_from_another_disk(monkeypatch, root)
    met, copytree = threading.Barrier(3), shutil.copytree

    def copy_together(source: Path, *args: Any) -> Any:
        if source in made:
            met.wait(10)  # by now each has seen that no other was first
        return copytree(source, *args)

    monkeypatch.setattr(shutil, "copytree", copy_together)
    with ThreadPoolExecutor() as workers:
        assert list(workers.map(partial(cache.adopt, "new"), made)) == [None] * 3
    assert copies(root) == ["a", "b", "c", "d", "new"]
    assert sorted(path.name for path in (root / "new").iterdir()) == ["base", "manifest.json"]
    assert list(root.glob(".keep-*")) == []


def test_a_model_that_took_long_to_store_is_not_old(cache: ModelCache, tmp_path: Path) -> None:
    folder = a_model(tmp_path / "scratch")
    os.utime(folder, (0, 0))
    cache.adopt("new", folder)
    assert "new" not in cache.prune(free_bytes=NO_ROOM, most_bytes=None, in_use=())


def a_model(folder: Path) -> Path:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "model.safetensors").write_bytes(b"x")
    (folder / "manifest.json").write_text("{}")
    return folder


def come_from_another_disk(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let nothing outside ``root`` be renamed into it."""
    rename = Path.rename

    def across(path: Path, target: Path) -> Path:
        if root not in path.parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", across)


class Watched(LocalStore):
    """A store that tells which keys were uploaded."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.uploaded: list[str] = []

    def upload(self, key: str, path: Path) -> None:
        super().upload(key, path)
        self.uploaded.append(key)


def test_a_model_that_another_worker_uploaded_meanwhile_is_kept_and_not_sent_again(tmp_path: Path) -> None:
    store = Watched(tmp_path / "store")
    for n in range(2):
        cache = ModelCache(tmp_path / f"machine{n}", store)
        cache.adopt("new", a_model(tmp_path / f"scratch{n}"))
        assert (tmp_path / f"machine{n}" / "new" / "base" / "model.safetensors").is_file()
    assert store.uploaded == ["models/new/base/model.safetensors", "models/new/manifest.json"]


def test_an_upload_that_broke_off_is_done_again(tmp_path: Path) -> None:
    store = Watched(tmp_path / "store")
    store.write("models/new/base/model.safetensors", b"half of i")
    ModelCache(tmp_path / "machine", store).adopt("new", a_model(tmp_path / "scratch"))
    assert store.read("models/new/base/model.safetensors") == b"x"


@pytest.mark.parametrize("left", [b"y", None])
def test_a_model_that_the_store_has_damaged_or_lost_is_not_kept(left: bytes | None, tmp_path: Path) -> None:
    store, key = LocalStore(tmp_path / "store"), "models/new/base/model.safetensors"
    model = a_model(tmp_path / "scratch")
    digest = hashlib.sha256(b"x").hexdigest()
    manifest = {"files": {"base/model.safetensors": {"sha256": digest, "bytes": 1}}}
    (model / "manifest.json").write_text(json.dumps(manifest))
    ModelCache(tmp_path / "one", store).adopt("new", model)
    other = ModelCache(tmp_path / "other", store)
    store.delete(key) if left is None else store.write(key, left)
    with pytest.raises(StoreCorrupt, match="is not what was uploaded"):
        other.fetch("new")
    assert copies(tmp_path / "other") == []
    store.write(key, b"x")
    assert (other.fetch("new") / "base" / "model.safetensors").read_bytes() == b"x"
