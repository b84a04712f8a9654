"""The renaming of a ledger: older releases named it by a digest of the table, which reveals the table."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from nss_train.errors import ParameterError, Problem
from nss_train.text.names import declared, draw_name
from tasks.jobs.privacy.datasets import PRIVATE, DatasetKeys
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.store.base import Store

logger = logging.getLogger(__name__)


def rename(store: Store, dataset: str, *, to: str | None = None) -> str:
    """Move a ledger with its private part to a drawn name, or to a declared one; return the name.

    Repeat it when it was interrupted: the name is stored before anything is moved. Raises
    :class:`ParameterError` for a ledger with unfinished jobs, which would be settled under the old name.
    """
    old = DatasetKeys(dataset)
    _check(store, dataset, to)
    store.put_if_absent(old.renamed, (to or draw_name()).encode())
    name = store.read(old.renamed).decode()
    new = DatasetKeys(name)
    keys = [key for key in store.list(old.root) if key != old.renamed]
    for key in keys:
        document = store.read(key)
        if not key.startswith(old.private):
            document = _renamed(document, name)
        store.put_if_absent(new.root + key.removeprefix(old.root), document)
    for key in [*reversed(keys), old.renamed]:
        store.delete(key)
    fields = {"action": "privacy.renamed", "dataset": name}
    logger.info("a ledger is now that of dataset %s", name, extra=fields)
    return name


def _check(store: Store, dataset: str, to: str | None) -> None:
    problems = list(_problems(store, dataset, to))
    if problems:
        raise ParameterError("The ledger cannot be renamed.", problems)


def _problems(store: Store, dataset: str, to: str | None) -> Iterator[Problem]:
    costs = DatasetLedger(store, dataset).read().costs if _is_whole(store, dataset) else ()
    unfinished = [cost.job_id for cost in costs if not cost.settled]
    if unfinished:
        remedy = "these jobs have not ended, or are not tidied up (`nss-train reconcile`); wait for them"
        yield Problem(field="dataset", value=", ".join(unfinished[:5]), remedy=remedy)
    if not any(store.children(DatasetKeys(dataset).root)):
        yield Problem(field="dataset", value=dataset, remedy="there is no such ledger")
    if to is not None:
        try:
            declared(to)
        except ValueError as error:
            yield Problem(field="to", value=to, remedy=str(error))
        else:
            yield from _taken(store, dataset, to)


def _taken(store: Store, dataset: str, to: str) -> Iterator[Problem]:
    """Yield a problem for a name that has a ledger, unless an interrupted move goes to it."""
    try:
        begun = store.read(DatasetKeys(dataset).renamed).decode() == to
    except KeyError:
        begun = False
    if not begun and any(name != PRIVATE for name in store.children(DatasetKeys(to).root)):
        yield Problem(field="to", value=to, remedy="has a ledger already; choose another name")


def _is_whole(store: Store, dataset: str) -> bool:
    """Tell whether no move has begun, which leaves the old ledger in parts."""
    return not store.exists(DatasetKeys(dataset).renamed)


def _renamed(document: bytes, name: str) -> bytes:
    entry = json.loads(document)
    if "plan" in entry:
        entry["plan"]["dataset"] = name
    return json.dumps(entry, indent=1).encode()
