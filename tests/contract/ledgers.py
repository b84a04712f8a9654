"""Ledgers of invented datasets, and jobs that ask to use them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from nss_train.config import parse_config
from tasks.jobs.documents import JobRequest, Table
from tasks.jobs.privacy.datasets import prove
from tasks.jobs.privacy.ledger import DatasetLedger, Granted
from tasks.store.base import Store


def set_budget(
    ledger: DatasetLedger,
    epsilon: float,
    *,
    reason: str = "a test",
    owner: str = "aviary",
    unit: str = "record",
) -> Granted:
    return ledger.set_budget(
        epsilon=epsilon, delta=1e-6, by="the board", reason=reason, unit=unit, owner=owner
    )


def anybodys(store: Store, epsilon: float) -> DatasetLedger:
    """Write a budget as older releases did: without an owner, and composed as if all were fixed."""
    older = {"kind": "budget", "at": "2026-01-01T00:00:00Z", "by": "b", "reason": "r", "delta": 1e-6}
    store.write("privacy/birds/00000001.json", json.dumps(older | {"epsilon": epsilon}).encode())
    return DatasetLedger(store, "birds")


def asking(token: str | None, *, tenant: str = "aviary", job_id: str = "job-0001") -> JobRequest:
    """Return a job on the birds, by a tenant that holds a token."""
    return JobRequest(
        job_id=job_id,
        table=Table(name="t.csv"),
        config=parse_config({"privacy": {"dp_enabled": True}, "guarantee": {"dataset": "birds"}}),
        tenant=tenant,
        seed=1,
        submitted_at=datetime.now(UTC),
        dataset_proof=None if token is None else prove(token, job_id),
    )


def anybodys_again(ledger: DatasetLedger, epsilon: float) -> Granted:
    return ledger.set_budget(epsilon=epsilon, delta=1e-6, by="the board", reason="a test")
