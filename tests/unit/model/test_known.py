"""What a machine knows of its base models holds for as long as no file changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nss_train.contract import ModelPolicy
from nss_train.errors import InfrastructureError, ParameterError
from nss_train.model.local import hashing, source
from nss_train.model.local.copying import copy_files
from nss_train.model.local.hashing import learn
from nss_train.model.local.known import Memory
from nss_train.model.local.source import ModelSource, find_model

WEIGHTS = "model.safetensors"


def found(model: Path, root: Path) -> ModelSource:
    return find_model(str(model), ModelPolicy(models_dir=str(model.parent)), memory=Memory(root))


def digests(model: Path, root: Path) -> dict[str, str]:
    return learn(found(model, root), Memory(root)).digests


def document(root: Path) -> Path:
    (file,) = root.iterdir()
    return file


@pytest.mark.usefixtures("_old_enough")
def test_a_file_is_hashed_once(model: Path, root: Path, hashed: list[str]) -> None:
    first = digests(model, root)
    assert sorted(hashed) == sorted(first)
    hashed.clear()
    assert digests(model, root) == first
    assert hashed == []


@pytest.mark.usefixtures("_old_enough")
def test_a_model_that_passed_the_checks_is_not_read_again(
    model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests(model, root)
    monkeypatch.setattr(source, "_content_faults", None)
    assert found(model, root).folder == model


def later(change: Callable[[Path], None], path: Path) -> None:
    """Change a file once the clock of its file system has gone on since it was made."""
    clock, made_ns = path.parent.parent / "clock", path.stat().st_ctime_ns
    clock.touch()
    while clock.stat().st_ctime_ns <= made_ns:
        clock.touch()
    change(path)


def overwrite(path: Path) -> None:
    """Change the bytes in place, and set the times back to what they were."""
    before, data = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file of the same size and times in its place."""
    before, aside = path.stat(), path.with_name("aside")
    aside.write_bytes(path.read_bytes()[:-1] + b"\n")
    os.utime(aside, ns=(before.st_atime_ns, before.st_mtime_ns))
    aside.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.usefixtures("_old_enough")
@pytest.mark.parametrize("change", [overwrite, replace, cut, Path.touch])
def test_a_file_that_changed_is_hashed_again_and_no_other(
    change: Callable[[Path], None], model: Path, root: Path, hashed: list[str]
) -> None:
    before = digests(model, root)
    hashed.clear()
    later(change, model / "chat_template.jinja")
    after = digests(model, root)
    assert hashed == ["chat_template.jinja"]
    differ = {name for name in before if before[name] != after[name]}
    assert differ == (set() if change is Path.touch else {"chat_template.jinja"})


@pytest.mark.usefixtures("_old_enough")
def test_a_model_that_changed_is_checked_again(model: Path, root: Path) -> None:
    digests(model, root)
    later(cut, model / WEIGHTS)
    with pytest.raises(ParameterError, match="model.safetensors"):
        found(model, root)


@pytest.mark.usefixtures("_old_enough")
def test_a_file_that_came_later_is_part_of_the_model(model: Path, root: Path) -> None:
    before = digests(model, root)
    (model / "merges.txt").write_text("a b\n")
    assert digests(model, root).keys() - before.keys() == {"merges.txt"}


def test_a_file_younger_than_two_seconds_is_not_remembered(
    model: Path, root: Path, hashed: list[str]
) -> None:
    """It could change once more without another time: git calls it racily clean."""
    (model / WEIGHTS).touch()
    first = digests(model, root)
    hashed.clear()
    assert digests(model, root) == first
    assert sorted(hashed) == sorted(first)


@pytest.mark.usefixtures("_old_enough")
def test_a_file_from_the_future_is_not_remembered(model: Path, root: Path) -> None:
    soon = (model / WEIGHTS).stat().st_mtime_ns + 10**13
    os.utime(model / WEIGHTS, ns=(soon, soon))
    digests(model, root)
    assert not root.exists()


def forge(root: Path) -> dict[str, str]:
    """Give every file the digest of another one; return what is claimed."""
    kept = json.loads(document(root).read_text())
    for file in kept["files"].values():
        file["sha256"] = "0" * 64
    document(root).write_text(json.dumps(kept))
    return dict.fromkeys(kept["files"], "0" * 64)


@pytest.mark.usefixtures("_old_enough")
@pytest.mark.parametrize("opened", ["file", "folder"])
def test_what_others_can_write_is_not_believed(
    opened: str, model: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    true = digests(model, root)
    claimed = forge(root)
    assert digests(model, root) == claimed  # the worker's own user is believed
    (document(root) if opened == "file" else root).chmod(0o777)
    assert digests(model, root) == true
    assert "another user can write to" in caplog.text


@pytest.mark.usefixtures("_old_enough")
def test_a_document_of_another_user_is_not_believed(
    model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = digests(model, root)
    forge(root)
    other = os.geteuid() + 1
    if os.geteuid() == 0:
        os.chown(document(root), other, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: other)
    assert digests(model, root) == true


@pytest.mark.usefixtures("_old_enough")
def test_a_link_in_the_place_of_the_document_is_not_followed(model: Path, root: Path, tmp_path: Path) -> None:
    true = digests(model, root)
    forge(root)
    kept = document(root)
    elsewhere = shutil.move(kept, tmp_path / "elsewhere")
    kept.symlink_to(elsewhere)
    assert digests(model, root) == true


@pytest.mark.usefixtures("_old_enough")
@pytest.mark.parametrize(
    "left", ["", "{", "[]", '{"files": {"config.json": 1}}', '{"of": "a later release"}']
)
def test_a_damaged_document_is_written_anew(left: str, model: Path, root: Path, hashed: list[str]) -> None:
    true = digests(model, root)
    document(root).write_text(left)
    assert digests(model, root) == true
    hashed.clear()
    assert digests(model, root) == true
    assert hashed == []


@pytest.mark.usefixtures("_old_enough")
def test_nothing_is_kept_beside_the_model_and_nobody_else_reads_what_is_kept(model: Path, root: Path) -> None:
    before = sorted(model.iterdir())
    digests(model, root)
    assert sorted(model.iterdir()) == before
    assert root.stat().st_mode & 0o777 == 0o700
    assert document(root).stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("_old_enough")
def test_where_nothing_can_be_kept_a_model_is_hashed_all_the_same(
    model: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.write_text("no folder")
    assert digests(model, root)[WEIGHTS]
    assert "is not remembered" in caplog.text


@pytest.mark.parametrize("change", [overwrite, replace, cut, Path.touch, Path.unlink])
def test_a_file_that_changes_after_the_checks_is_neither_hashed_nor_copied(
    change: Callable[[Path], None], model: Path, root: Path, tmp_path: Path
) -> None:
    checked = found(model, root)
    later(change, model / WEIGHTS)
    with pytest.raises((InfrastructureError, FileNotFoundError)):
        learn(checked, Memory(root))
    with pytest.raises((InfrastructureError, FileNotFoundError)):
        copy_files(checked.files, tmp_path, seen=checked.seen)


@pytest.mark.usefixtures("_old_enough")
def test_a_known_file_that_changes_after_the_checks_does_not_get_its_digest(model: Path, root: Path) -> None:
    digests(model, root)
    checked = found(model, root)
    later(overwrite, model / WEIGHTS)
    with pytest.raises(InfrastructureError, match="changed while it was read"):
        learn(checked, Memory(root))


@pytest.mark.parametrize("in_kernel", [True, False])
def test_copies_share_no_file_with_the_original(
    in_kernel: bool, model: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> int:
        raise OSError(18, os.strerror(18))  # another file system

    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "copy").mkdir()
    checked = found(model, root)
    copy_files(checked.files, tmp_path / "copy", seen=checked.seen)
    kept = {path.name: path.read_bytes() for path in checked.files}
    overwrite(model / WEIGHTS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == kept


@pytest.mark.usefixtures("_old_enough")
def test_of_many_adapters_the_latest_are_remembered(
    model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "MOST_ADAPTERS", 2)
    for shape in ("a", "b", "c", "b"):
        learn(found(model, root), Memory(root), adapters={shape: 1})
    assert list(Memory(root).recorded(model).adapters) == ["b", "c"]
