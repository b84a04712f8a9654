"""What a machine remembers is used only if it is whole and its own; forgetting it fails nothing."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

from nss_train.contract import Frozen
from nss_train.remembered import recall, remember


class Model(Frozen):
    size: int


@dataclass(frozen=True)
class Plain:
    size: int


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "one.json"


@pytest.mark.parametrize("kind", [Model, Plain])
def test_a_document_is_recalled_as_it_was(file: Path, kind: type[Model | Plain]) -> None:
    assert recall(file, kind) is None
    for size in (1, 2):
        remember(file, kind(size=size))
        assert recall(file, kind) == kind(size=size)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("left", [b"", b"[1]", b'{"width": 1}', b"\xff\xfe", b'{"size": "many"}'])
def test_what_is_no_such_document_is_not_used(file: Path, left: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(left)
    assert recall(file, Plain) is None
    assert recall(file, Model) is None


@pytest.mark.parametrize("writable", ["the file", "its folder"])
def test_what_another_user_may_have_written_is_not_used(
    file: Path, writable: str, caplog: pytest.LogCaptureFixture
) -> None:
    remember(file, Model(size=1))
    (file if writable == "the file" else file.parent).chmod(0o777)
    assert recall(file, Model) is None
    assert "another user can write to" in caplog.text


def test_a_link_to_a_document_is_not_followed(file: Path, tmp_path: Path) -> None:
    remember(tmp_path / "elsewhere.json", Model(size=1))
    file.parent.mkdir()
    file.symlink_to(tmp_path / "elsewhere.json")
    assert recall(file, Model) is None


def test_a_folder_that_cannot_be_written_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    remember(tmp_path / "file" / "one.json", Model(size=1))
    assert "is not remembered" in caplog.text


def write_often(file: Path) -> None:
    for size in range(300):
        remember(file, Model(size=size))


def test_processes_that_find_out_the_same_leave_a_whole_document(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remember(file, Model(size=0))
    writers = [get_context("spawn").Process(target=write_often, args=(file,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert recall(file, Model) is not None, caplog.text
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
