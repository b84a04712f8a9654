"""Requirements on every store: one suite for the folder and for a real S3 server."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nss_train.errors import DiskFull, ParameterError, StoreUnavailable
from tasks.settings import Settings, worker_environment
from tasks.store.base import Store
from tasks.store.open import open_bucket, open_store
from tasks.store.s3 import _part_bytes
from tests import clock

MIB = 2**20


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b ü.json", b"one")
    store.write("a/b ü.json", b"two!")
    assert store.size("a/b ü.json") == 4
    assert store.read("a/b ü.json") == b"two!"
    assert store.exists("a/b ü.json")


def test_a_missing_key_is_a_key_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        store.read("nothing/here")
    with pytest.raises(KeyError):
        store.size("nothing/here")
    with pytest.raises(KeyError):
        store.download("nothing/here", tmp_path / "file")
    assert not store.exists("nothing/here")
    assert not (tmp_path / "file").exists()


def test_of_many_racing_writers_exactly_one_is_first(store: Store) -> None:
    with ThreadPoolExecutor(32) as pool:
        won = list(pool.map(lambda n: store.put_if_absent("race", f"{n}".encode()), range(32)))
    assert won.count(True) == 1
    assert store.read("race") == f"{won.index(True)}".encode()


def test_put_if_absent_does_not_change_what_is_there(store: Store) -> None:
    assert store.put_if_absent("once", b"first")
    assert not store.put_if_absent("once", b"second")
    assert store.read("once") == b"first"


def test_a_large_file_survives_the_journey(store: Store, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "new" / "back"
    source.write_bytes(bytes(range(256)) * 80_000)
    store.upload("large", source)
    store.download("large", back)
    assert back.read_bytes() == source.read_bytes()
    assert [p.name for p in back.parent.iterdir()] == ["back"]


def test_keys_are_listed_in_order(store: Store) -> None:
    for key in ("jobs/b/2", "jobs/a/1", "jobs/a/x/3", "other"):
        store.write(key, b"")
    assert list(store.list("jobs/")) == ["jobs/a/1", "jobs/a/x/3", "jobs/b/2"]
    assert list(store.children("jobs/")) == ["a", "b"]
    assert list(store.children("nobody/")) == []


def test_a_deleted_key_is_gone_and_so_is_its_folder(store: Store) -> None:
    store.write("gone/soon", b"")
    store.delete("gone/soon")
    store.delete("gone/soon")
    assert not store.exists("gone/soon")
    assert "gone" not in list(store.children("gone/")) + list(store.list("gone/"))


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "a/./b", "a\\b", "a\0b"])
def test_keys_that_point_elsewhere_are_refused(store: Store, key: str, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.read(key),
        lambda: store.write(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.upload(key, tmp_path / "file"),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(ParameterError):
            call()


def test_a_store_that_is_there_passes_its_check(store: Store) -> None:
    store.check()


def test_a_service_that_is_down_says_so() -> None:
    settings = Settings.model_validate(
        {"s3_endpoint": "127.0.0.1:9", "s3_secure": False, "store_url": "s3://none"}
    )
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        open_store(settings).check()
    assert "NSS_TRAIN_S3_ENDPOINT" in caught.value.problems[0].remedy


def test_a_missing_bucket_says_so(s3_settings: Settings) -> None:
    with pytest.raises(StoreUnavailable, match="no bucket"):
        open_bucket(s3_settings, "missing").check()


def with_wrong_clock(offset: str, settings: Settings, call: str) -> subprocess.CompletedProcess[str]:
    """Call the store from a process whose clock is off."""
    imports = "from tasks.settings import Settings; from tasks.store.open import open_store; "
    return subprocess.run(
        [sys.executable, "-c", f"{imports}print(open_store(Settings()).{call})"],
        env=worker_environment(settings) | clock.moved(offset),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_clock_that_is_hours_ahead_is_named(s3_settings: Settings) -> None:
    answer = with_wrong_clock("+2h", s3_settings, "read('a')")
    assert "refuses this machine's clock" in answer.stderr
    assert "NTP" in answer.stderr


@pytest.mark.parametrize("offset", ["+14m", "-14m"])
def test_a_clock_that_is_minutes_off_does_no_harm(offset: str, s3_settings: Settings) -> None:
    key = f"clock/{offset}"
    assert with_wrong_clock(offset, s3_settings, f"put_if_absent('{key}', b'')").stdout == "True\n"
    assert with_wrong_clock(offset, s3_settings, f"put_if_absent('{key}', b'')").stdout == "False\n"
    assert with_wrong_clock(offset, s3_settings, f"read('{key}')").stdout == "b''\n"


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = Settings.model_validate({"store_url": (tmp_path / "file" / "store").as_uri()})
    with pytest.raises(StoreUnavailable):
        open_store(settings).check()


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(ParameterError):
        open_store(Settings.model_validate({"store_url": "ftp://elsewhere"}))


def test_a_transfer_lets_others_look_around_and_can_be_ended(store: Store, tmp_path: Path) -> None:
    source, seen = tmp_path / "source", list[int]()
    source.write_bytes(b"x" * 5 * 2**20)
    attended = store.attended(lambda: seen.append(1))
    attended.upload("large", source)
    uploaded = len(seen)
    attended.download("large", tmp_path / "back")
    assert 0 < uploaded < len(seen)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    with pytest.raises(Interrupted):
        store.attended(leave).upload("never", source)
    with pytest.raises(Interrupted):
        store.attended(leave).download("large", tmp_path / "none")
    assert not store.exists("never")
    assert not (tmp_path / "none").exists()


def test_a_transfer_in_parts_that_is_ended_leaves_nothing_running(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.store.s3._PART_BYTES", 5 * MIB)
    source, before = tmp_path / "source", set(threading.enumerate())
    with source.open("wb") as file:
        file.truncate(16 * MIB)
    looks = iter(range(100))

    def leave_later() -> None:
        assert set(threading.enumerate()) == before
        if next(looks) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        store.attended(leave_later).upload("never", source)
    assert set(threading.enumerate()) == before
    assert not store.exists("never")


@pytest.mark.parametrize("size", [0, MIB, 10_000 * 16 * MIB, 10_000 * 16 * MIB + 1, 2**42])
def test_an_object_has_no_more_parts_than_s3_allows(size: int) -> None:
    assert _part_bytes(size) >= 16 * MIB
    assert _part_bytes(size) * 10_000 >= size


class Interrupted(Exception):
    """An interruption by the caller."""


def leave() -> None:
    raise Interrupted


@pytest.fixture
def small_files() -> Iterator[None]:
    """Limit this process to files of at most a MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_of_the_worker_is_not_an_absent_store(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store.write("large", b"x" * 2 * 2**20)
    request.getfixturevalue("small_files")
    with pytest.raises(DiskFull, match="cannot write"):
        store.download("large", tmp_path / "file")


def test_writes_and_deletes_of_one_folder_do_not_meet(store: Store) -> None:
    def write_and_delete(number: int) -> None:
        for _ in range(50):
            store.write(f"busy/{number}", b"x")
            store.put_if_absent(f"busy/once-{number}", b"x")
            list(store.children("busy/"))
            store.delete(f"busy/{number}")
            store.delete(f"busy/once-{number}")

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(write_and_delete, range(8)))) == 8
