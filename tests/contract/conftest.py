"""A store in a folder and in S3, and a ledger in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.store.open import open_bucket, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(Settings.model_validate({"home": tmp_path}))
    settings: Settings = request.getfixturevalue("s3_settings")
    bucket = settings.effective_store_url.removeprefix("s3://")
    return open_bucket(settings, bucket, prefix=f"contract/{tmp_path.name}")


@pytest.fixture
def ledger(store: Store) -> DatasetLedger:
    return DatasetLedger(store, "birds")
