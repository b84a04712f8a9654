"""A model of a few bytes, and what its machine knows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.model.local import hashing, snapshot

from .test_source import make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "models" / "m")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "known"


@pytest.fixture
def _old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be known from the moment it is there."""
    monkeypatch.setattr(snapshot, "SETTLED_NS", 0)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from now on."""
    names: list[str] = []
    hash_one = hashing._hash

    def count(path: Path, *args: object) -> object:
        names.append(path.name)
        return hash_one(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(hashing, "_hash", count)
    return names
