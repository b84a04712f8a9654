"""The same rows under another name: detected by a keyed sketch, reported to the operator alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

from nss_train.errors import ParameterError, Problem
from nss_train.privacy.sketch import SAME, Sketch
from nss_train.text.names import is_dataset
from tasks.jobs import versioning
from tasks.jobs.privacy.datasets import DatasetKeys, read_binding
from tasks.jobs.versioning import Versioned
from tasks.store.base import Store

logger = logging.getLogger(__name__)

ACTION = "privacy.same_data"


class SameData(Versioned):
    """``private/same-data/<other>``: another dataset that has rows, or people, of this one."""

    dataset: str
    share: Annotated[float, Field(ge=0, le=1)]
    """Estimated share of the smaller of the two tables."""
    at: AwareDatetime


class KeptSketch(Versioned):
    """``private/sketches/<digest>.json``: the sketch of a table that was charged to a dataset."""

    sketch: Sketch


@contextmanager
def notice(store: Store, dataset: str, sketch: Sketch, *, job_id: str) -> Iterator[list[SameData]]:
    """Keep a table's sketch while a job is about to be charged for it inside the block.

    Yield, and report to the operator, other datasets that the table was seen under. The sketch is stored
    before the others are read: of two jobs at once, one sees the other.
    """
    pending = _key(dataset, sketch, job_id)
    store.put_if_absent(pending, _document(sketch))
    try:
        yield _seen_before(store, dataset, sketch)
    finally:
        store.delete(pending)


def keep(store: Store, dataset: str, sketch: Sketch) -> None:
    """Keep the sketch of a table that was charged to the dataset. Of any other table none must stay.

    A job that was refused would otherwise keep its table from being charged elsewhere.
    """
    store.put_if_absent(_key(dataset, sketch), _document(sketch))


def _seen_before(store: Store, dataset: str, sketch: Sketch) -> list[SameData]:
    found = [
        SameData(dataset=other, share=share, at=datetime.now(UTC))
        for other in store.children("privacy/")
        if is_dataset(other) and other != dataset and (share := _share(store, other, sketch)) >= SAME
    ]
    for one in found:
        _note(store, dataset, one)
        _note(store, one.dataset, one.model_copy(update={"dataset": dataset}))
        fields = {"action": ACTION, "dataset": dataset, "other": one.dataset, "share": round(one.share, 2)}
        logger.warning("dataset %s has %.0f%% of %s", dataset, 100 * one.share, one.dataset, extra=fields)
    return found


def refuse(store: Store, dataset: str, found: list[SameData]) -> None:
    """Raise :class:`ParameterError` for a table that belongs to another dataset.

    The message names no dataset: the answer alone reveals that another has these rows. A dataset with an
    owner is not refused for rows that were seen under a name without an owner.
    """
    is_owned = read_binding(store, dataset) is not None
    if not any(not is_owned or read_binding(store, one.dataset) is not None for one in found):
        return
    remedy = "this table is not charged to this dataset here; ask the operator, whose log says why"
    problem = Problem(field="guarantee.dataset", value=None, remedy=remedy)
    raise ParameterError("The operator's rules refuse this table.", [problem], public=True)


def noticed(store: Store, dataset: str) -> Iterator[SameData]:
    """Yield other datasets that have rows of this one, as far as jobs have shown."""
    for key in store.list(DatasetKeys(dataset).same_data):
        yield versioning.read(SameData, store.read(key), what=f"The store's {key}")


def _share(store: Store, other: str, sketch: Sketch) -> float:
    keys = store.list(DatasetKeys(other).sketches)
    kept = (versioning.read(KeptSketch, store.read(key), what=f"The store's {key}") for key in keys)
    return max((sketch.overlap(one.sketch) for one in kept), default=0.0)


def _note(store: Store, dataset: str, other: SameData) -> None:
    key = f"{DatasetKeys(dataset).same_data}{other.dataset}.json"
    store.write(key, other.model_dump_json(indent=1).encode())


def _document(sketch: Sketch) -> bytes:
    return KeptSketch(sketch=sketch).model_dump_json().encode()


def _key(dataset: str, sketch: Sketch, *job_id: str) -> str:
    """Return a key by the sketch's own digest, so that many jobs on one table keep one sketch."""
    digest = hashlib.sha256(sketch.model_dump_json().encode()).hexdigest()
    return f"{DatasetKeys(dataset).sketches}{'.'.join([digest[:32], *job_id])}.json"
