from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.errors import StoreUnavailable
from tasks.app import App, make_app
from tasks.broker import queues
from tasks.client import Client
from tasks.settings import Settings
from tasks.worker.reconciler import take_turn

EVERY_S = 60.0


@pytest.fixture
def app(settings: Settings) -> App:
    found = make_app(settings.model_copy(update={"reconcile_every_s": EVERY_S, "lease_ttl_s": 0.0}))
    found.redis.flushall()
    return found


@pytest.fixture
def stranded(app: App, tmp_path: Path) -> str:
    """Submit a job whose message is lost."""
    table = tmp_path / "birds.csv"
    table.write_text("species,mass\n" + "Adelie,3750\n" * 20)
    job_id = Client(app.settings).submit(table=table)
    app.redis.flushall()
    return job_id


def is_sent(app: App) -> bool:
    return queues.waiting(app.redis, app.settings)["cpu"] > 0


def test_a_worker_that_cannot_reach_the_store_leaves_its_turn_to_another(
    app: App, stranded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(type(app.store), "children", fails)
        take_turn(app)
    assert not is_sent(app)
    take_turn(app)
    assert is_sent(app), stranded


def test_a_turn_is_taken_once_in_an_interval(app: App, stranded: str) -> None:
    take_turn(app)
    assert is_sent(app), stranded
    app.redis.delete(*queues.lists("cpu"))
    take_turn(app)
    assert not is_sent(app)


def fails(*_: object) -> None:
    raise StoreUnavailable("The store does not answer.")
