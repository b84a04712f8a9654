"""Checkpoints in a store: what counts as one, which is gone on from, and what is removed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from nss_train.errors import StoreUnavailable
from nss_train.training.checkpoint import write_manifest
from tasks.checkpoints import CheckpointStore, Kept, Uploader
from tasks.job import Keys
from tasks.store.local import LocalStore

KEYS = Keys("job-0001")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def made(folder: Path, step: int) -> Path:
    made = folder / f"made-{step}"
    made.mkdir()
    for name in ("adapter.safetensors", "optimizer.pt"):
        (made / name).write_text(f"{name} after step {step}")
    write_manifest(made, step)
    return made


def test_the_newest_is_gone_on_from_and_the_old_ones_go(store: LocalStore, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(store, KEYS)
    for step, attempt in ((5, 1), (10, 1), (15, 2)):
        checkpoints.upload(made(tmp_path, step), Kept(step, attempt))
    checkpoints.prune(2)
    assert checkpoints.complete() == [Kept(15, 2), Kept(10, 1)]
    assert checkpoints.restore(tmp_path / "in") == Kept(15, 2)
    assert json.loads((tmp_path / "in" / "manifest.json").read_text())["step"] == 15
    assert (tmp_path / "in" / "optimizer.pt").read_text() == "optimizer.pt after step 15"


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "no manifest", "broken manifest"])
def test_one_that_is_not_whole_is_passed_over(harm: str, store: LocalStore, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(store, KEYS)
    for step in (5, 10):
        checkpoints.upload(made(tmp_path, step), Kept(step, 1))
    root = f"{KEYS.checkpoints}10/1"
    weights, manifest = f"{root}/adapter.safetensors", f"{root}/manifest.json"
    match harm:
        case "cut":
            store.write(weights, store.read(weights)[:-1])
        case "changed":
            store.write(weights, store.read(weights).replace(b"step", b"stEp"))
        case "missing":
            store.delete(weights)
        case "no manifest":
            store.delete(manifest)
        case "broken manifest":
            store.write(manifest, b"{")
    assert checkpoints.restore(tmp_path / "in") == Kept(5, 1)
    assert (tmp_path / "in" / "adapter.safetensors").read_text() == "adapter.safetensors after step 5"


def test_without_any_there_is_nothing_to_go_on_from(store: LocalStore, tmp_path: Path) -> None:
    assert CheckpointStore(store, KEYS).restore(tmp_path / "in") is None


def test_what_a_killed_upload_left_goes_with_the_next_prune(store: LocalStore, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(store, KEYS)
    store.write(f"{KEYS.checkpoints}5/1/optimizer.pt", b"half")
    checkpoints.upload(made(tmp_path, 10), Kept(10, 2))
    checkpoints.prune(2)
    assert {key.split("/")[3] for key in store.list(KEYS.checkpoints)} == {"10"}


class AwayStore(LocalStore):
    """Is away until it is told to come back."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.back, self.asked = threading.Event(), threading.Event()

    def upload(self, key: str, path: Path) -> None:
        self.asked.set()
        if not self.back.is_set():
            raise StoreUnavailable("away")
        super().upload(key, path)


def test_a_store_that_is_away_gets_the_newest_when_it_is_back(tmp_path: Path) -> None:
    store = AwayStore(tmp_path / "store")
    checkpoints = CheckpointStore(store, KEYS)
    uploader = Uploader(checkpoints, attempt=3, keep=2)
    folders = [made(tmp_path, step) for step in (5, 10)]
    uploader.offer(folders[0], 5)
    assert store.asked.wait(10)
    uploader.offer(folders[1], 10)
    store.back.set()
    uploader.finish(10)
    uploader.close()
    assert checkpoints.complete()[0] == Kept(10, 3)
    assert not any(folder.exists() for folder in folders)
