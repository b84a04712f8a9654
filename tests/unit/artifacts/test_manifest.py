"""A folder's manifest says what is in it, and notices every change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nss_train.artifacts.files import write_json
from nss_train.artifacts.manifest import verify_manifest, write_manifest
from nss_train.errors import DataError, InfrastructureError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "b.txt").write_text("bee")
    (tmp_path / "deep/er/a.bin").write_bytes(b"\0\1")
    return tmp_path


def test_the_manifest_has_digest_and_size_of_every_other_file(folder: Path) -> None:
    assert write_manifest(folder)["files"] == {
        "b.txt": {"sha256": "62cb81b5904a262ffaeed02abef36bfc540b09f964b8b0b636662f77ffce6714", "bytes": 3},
        "deep/er/a.bin": {
            "sha256": "b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2",
            "bytes": 2,
        },
    }


def test_an_untouched_folder_verifies(folder: Path) -> None:
    written = write_manifest(folder)
    assert verify_manifest(folder) == written


def test_writing_it_twice_gives_the_same_bytes(folder: Path) -> None:
    write_manifest(folder)
    first = (folder / "manifest.json").read_bytes()
    write_manifest(folder)
    assert (folder / "manifest.json").read_bytes() == first


def test_every_mismatch_is_named_at_once(folder: Path) -> None:
    (folder / "same_size").write_text("abc")
    write_manifest(folder)
    (folder / "b.txt").unlink()
    (folder / "same_size").write_text("abd")
    (folder / "deep/er/a.bin").write_bytes(b"")
    (folder / "new").write_text("")
    with pytest.raises(InfrastructureError) as caught:
        verify_manifest(folder)
    assert [p.field for p in caught.value.problems] == ["b.txt", "deep/er/a.bin", "new", "same_size"]


def test_a_folder_without_a_manifest_does_not_verify(folder: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        verify_manifest(folder)


def test_nothing_aside_is_left_in_the_folder(folder: Path) -> None:
    write_manifest(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["b.txt", "deep", "manifest.json"]


def test_json_is_written_as_nss_writes_it(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "é", "a": [1, 0.5]})
    assert (
        tmp_path / "x.json"
    ).read_bytes() == b'{\n    "b": "\\u00e9",\n    "a": [\n        1,\n        0.5\n    ]\n}'
    assert json.loads((tmp_path / "x.json").read_text()) == {"b": "é", "a": [1, 0.5]}
