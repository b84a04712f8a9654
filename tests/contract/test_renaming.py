"""A ledger that was named by a digest moves to a drawn name, whatever interrupts the move."""

from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.errors import ParameterError
from tasks.jobs.documents import Outcome
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.privacy.renaming import rename
from tasks.store.base import Store
from tasks.store.local import LocalStore
from tests.unit.privacy.plans import plan


def test_a_ledger_named_by_a_digest_is_moved_to_a_drawn_name(store: Store) -> None:
    digest = "0" * 32
    old = DatasetLedger(store, digest)
    old.reserve("job-0001", plan(dataset=digest))
    store.write(f"privacy/{digest}/private/key", b"k" * 32)
    with pytest.raises(ParameterError, match="wait for them"):
        rename(store, digest)
    old.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=7, by_products=True)
    name = rename(store, digest)
    found = DatasetLedger(store, name).read()
    assert [(cost.steps, cost.plan.dataset) for cost in found.costs] == [(7, name)]
    assert store.read(f"privacy/{name}/private/key") == b"k" * 32
    assert not any(digest in key or digest.encode() in store.read(key) for key in store.list("privacy/"))


class DyingStore(LocalStore):
    """A store whose process is killed at the n-th change."""

    def __init__(self, root: Path, *, changes: int) -> None:
        super().__init__(root)
        self._left = changes

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._live()
        return super().put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self._live()
        super().delete(key)

    def _live(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("changes", range(8))
def test_a_move_that_was_interrupted_is_gone_on_with(changes: int, tmp_path: Path) -> None:
    whole = LocalStore(tmp_path)
    ledger = DatasetLedger(whole, "old")
    ledger.reserve("job-0001", plan(dataset="old"))
    ledger.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=7, by_products=True)
    whole.write("privacy/old/private/key", b"k" * 32)
    with pytest.raises(KeyboardInterrupt):
        rename(DyingStore(tmp_path, changes=changes), "old", to="new")
    assert rename(whole, "old", to="new") == "new"
    assert [cost.steps for cost in DatasetLedger(whole, "new").read().costs] == [7]
    assert list(whole.children("privacy/")) == ["new"]


def test_a_ledger_is_not_moved_onto_another(store: Store) -> None:
    for name in ("one", "two"):
        DatasetLedger(store, name).reserve("job-0001", plan(dataset=name, steps=0))
        DatasetLedger(store, name).settle("job-0001", outcome=Outcome.FAILED, steps=0, by_products=False)
    with pytest.raises(ParameterError, match="has a ledger already"):
        rename(store, "one", to="two")
    with pytest.raises(ParameterError, match="no such ledger"):
        rename(store, "three")
