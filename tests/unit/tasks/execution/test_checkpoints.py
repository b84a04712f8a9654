"""Checkpoints in a store: what counts as one, which is resumed from, and what is removed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nss_train.errors import StoreUnavailable
from nss_train.training.checkpoint import write_manifest
from tasks.execution.checkpoints import CheckpointStore, Kept, Uploader
from tasks.jobs.keys import Keys
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


def test_those_of_a_private_training_are_private(store: LocalStore, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(store, KEYS, private=True)
    checkpoints.upload(made(tmp_path, 5), Kept(5, 1))
    assert all(key.startswith(KEYS.private) for key in store.list("jobs/"))
    assert checkpoints.newest() == checkpoints.restore(tmp_path / "in") == Kept(5, 1)


def test_a_private_training_goes_on_from_what_an_older_release_kept_and_removes_it(
    store: LocalStore, tmp_path: Path
) -> None:
    CheckpointStore(store, KEYS).upload(made(tmp_path, 5), Kept(5, 1))
    checkpoints = CheckpointStore(store, KEYS, private=True)
    assert checkpoints.newest() == checkpoints.restore(tmp_path / "in") == Kept(5, 1)
    checkpoints.upload(made(tmp_path, 10), Kept(10, 2))
    assert checkpoints.complete() == [Kept(10, 2), Kept(5, 1)]
    checkpoints.prune(1)
    assert list(store.list(KEYS.checkpoints)) == []
    checkpoints.discard(2)
    assert list(store.list("jobs/")) == []


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
    """A store that is down until ``back`` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.back, self.asked = threading.Event(), threading.Event()

    def upload(self, key: str, path: Path) -> None:
        self.asked.set()
        if not self.back.is_set():
            raise StoreUnavailable("away")
        super().upload(key, path)

    def attended(self, look: Callable[[], None]) -> AwayStore:  # noqa: ARG002 (away, there are no pieces)
        return self


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


PIECE_S = 0.1
PIECES = 30


class SlowStore(LocalStore):
    """A store that takes a moment for each piece of an upload."""

    begun = threading.Event()

    def upload(self, key: str, path: Path) -> None:
        self.begun.set()
        for _ in range(PIECES):
            time.sleep(PIECE_S)
            self._look()
        super().upload(key, path)

    def attended(self, look: Callable[[], None]) -> SlowStore:
        slow = SlowStore(self._root, look=look)
        slow.begun = self.begun
        return slow


@pytest.fixture
def slow(tmp_path: Path) -> SlowStore:
    store = SlowStore(tmp_path / "store")
    store.begun = threading.Event()
    return store


def test_an_upload_that_nobody_wants_any_more_ends_with_its_piece(slow: SlowStore, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(slow, KEYS)
    uploader = Uploader(checkpoints, attempt=1, keep=2)
    folders = [made(tmp_path, step) for step in (5, 10)]
    uploader.offer(folders[0], 5)
    assert slow.begun.wait(10)
    uploader.offer(folders[1], 10)
    began = time.monotonic()
    uploader.close()
    assert time.monotonic() - began < PIECES * PIECE_S / 3
    assert checkpoints.complete() == []
    assert not any(folder.exists() for folder in folders)


class StuckStore(LocalStore):
    """A store whose uploads wait until the caller has looked around."""

    def __init__(self, root: Path, seen: threading.Event, look: Callable[[], None] = lambda: None) -> None:
        super().__init__(root, look=look)
        self._seen = seen

    def upload(self, key: str, path: Path) -> None:
        assert self._seen.wait(10)
        super().upload(key, path)

    def attended(self, look: Callable[[], None]) -> StuckStore:
        return StuckStore(self._root, self._seen, look)


@pytest.mark.parametrize("end", [lambda uploader, look: uploader.finish(10, look), Uploader.close])
def test_whoever_waits_for_an_upload_looks_around(
    end: Callable[[Uploader, Callable[[], None]], None], tmp_path: Path
) -> None:
    seen = threading.Event()
    uploader = Uploader(
        CheckpointStore(StuckStore(tmp_path / "s", seen), KEYS), attempt=1, keep=2, tick_s=0.01
    )
    uploader.offer(made(tmp_path, 5), 5)
    end(uploader, seen.set)
    assert seen.is_set()
    uploader.close()


def test_an_upload_that_takes_too_long_is_waited_for_no_longer(slow: SlowStore, tmp_path: Path) -> None:
    uploader = Uploader(CheckpointStore(slow, KEYS), attempt=1, keep=2, tick_s=0.01)
    uploader.offer(made(tmp_path, 5), 5)
    with pytest.raises(TimeoutError):
        uploader.finish(PIECE_S)
    uploader.close()
