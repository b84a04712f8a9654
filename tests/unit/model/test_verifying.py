"""A model is known before its first job, and hashed again when in doubt."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nss_train.model.local import snapshot
from nss_train.model.local.known import Memory
from nss_train.model.local.verifying import get_to_know, verify

from .test_known import digests, document, found, overwrite


@pytest.fixture
def memory(root: Path) -> Memory:
    return Memory(root)


def test_a_model_that_was_just_added_is_known_once_it_is_old_enough(
    model: Path,
    root: Path,
    memory: Memory,
    hashed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "SETTLED_NS", 2 * 10**8)
    os.utime(model / "config.json")
    get_to_know(model, memory)
    hashed.clear()
    assert digests(model, root)["config.json"]
    assert hashed == []


@pytest.mark.usefixtures("_old_enough")
def test_an_unchanged_model_is_as_it_was(model: Path, memory: Memory) -> None:
    assert len(verify(model, memory).unknown) == 5
    again = verify(model, memory)
    assert (again.files, again.unknown, again.differs) == (5, (), False)


@pytest.mark.usefixtures("_old_enough")
def test_what_differs_is_told_once_and_told_apart(model: Path, root: Path, memory: Memory) -> None:
    get_to_know(model, memory)
    kept = json.loads(document(root).read_text())
    kept["files"]["model.safetensors"]["sha256"] = "0" * 64  # as if its bytes were others now
    document(root).write_text(json.dumps(kept))
    overwrite(model / "chat_template.jinja")
    (model / "merges.txt").write_text("a b\n")
    first = verify(model, memory)
    assert (first.damaged, first.changed) == (("model.safetensors",), ("chat_template.jinja",))
    assert (first.unknown, first.gone) == (("merges.txt",), ())
    (model / "merges.txt").unlink()
    assert verify(model, memory).gone == ("merges.txt",)
    assert not verify(model, memory).differs


@pytest.mark.usefixtures("_old_enough")
def test_a_verified_model_needs_no_check(
    model: Path,
    root: Path,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verify(model, memory)
    monkeypatch.setattr("nss_train.model.local.source._content_faults", None)
    assert found(model, root).folder == model
