"""A deployment under attack: one worker for the queue ``cpu`` on a real Valkey and a folder."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nss_train.contract import ModelPolicy
from tasks.app import App, make_app
from tasks.jobs.ids import id_of_key
from tasks.jobs.keys import Keys
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tests.pipeline.conftest import config, table, worker
from tests.security.models import CONFIG, TENSORS, TOKENIZER, weights
from tests.security.receiver import SECRET, Receiver, receiver, webhook_settings
from tests.unit.model.test_source import make_model

__all__ = ["config", "table"]

WAIT_S = 60.0


class Target:
    """The deployment as an attacker sees it, and whether it still works."""

    def __init__(self, settings: Settings, log: Path, pid: int) -> None:
        self.settings = settings
        self.app: App = make_app(settings)
        self.pid = pid
        self._log = log
        self._seen = 0

    def push(self, raw: bytes) -> None:
        """Push one raw line into the queue."""
        self.app.redis.lpush(self.settings.queue_cpu, raw)

    def said(self) -> str:
        """Return what the worker logged since the last call."""
        text = self._log.read_text(errors="replace")
        new, self._seen = text[self._seen :], len(text)
        return new

    def does_honest_work(self) -> bool:
        """Submit a job that is refused, and return true once the refusal is recorded, within milliseconds."""
        key = uuid.uuid4().hex
        message = {"table": "s3://elsewhere/x.csv", "config": {}, "idempotency_key": key}
        self.app.send_task("nss_train.submit", kwargs=message)
        wait_until(lambda: self.app.store.exists(Keys(id_of_key(key)).outcome))
        return True

    @property
    def log(self) -> str:
        """Return all that the worker logged."""
        return self._log.read_text(errors="replace")

    def stored(self) -> set[str]:
        """Return the keys of all that is in the store. What vanishes meanwhile is left out."""
        root = Path(self.settings.home / "store")
        found = ((Path(folder), name) for folder, _, names in os.walk(root) for name in names)
        return {(folder / name).relative_to(root).as_posix() for folder, name in found}


@pytest.fixture(scope="module")
def _target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Run one target for each module: answers to one module's refused messages take a while."""
    folder = tmp_path_factory.mktemp("target")
    (folder / "valkey").mkdir()
    with Valkey(folder / "valkey") as valkey:
        given = {
            "home": folder / "home",
            "broker_url": valkey.url,
            "reconcile_every_s": 0,
            "warm_hosts": "never",
        } | {
            "webhook_hosts": ["127.0.0.1"],
            "webhook_secret": SECRET,
            "webhook_http": True,
            "webhook_networks": ["127.0.0.0/8"],
        }
        settings, log = Settings.model_validate(given), folder / "cpu.log"
        with worker(settings, settings.queue_cpu, log) as process:
            yield Target(settings, log, process.pid)


@pytest.fixture
def target(_target: Target) -> Target:
    """Return the target, idle."""
    assert _target.does_honest_work()
    _target.said()
    return _target


def own_keys(keys: set[str]) -> set[str]:
    """Return the keys without those of the honest submissions that follow each attack."""
    return {key for key in keys if "/key-" not in key}


def wait_until(happened: Callable[[], bool], *, deadline_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def listening() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def allowing(settings: Settings) -> Settings:
    return settings.model_copy(update=webhook_settings(settings))


@pytest.fixture
def strict(tmp_path: Path) -> ModelPolicy:
    """Return the policy of an operator who lets jobs name only models of the models folder."""
    return ModelPolicy(models_dir=str(tmp_path / "models"), allow_paths=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Make a model with which nothing is wrong."""
    folder = make_model(tmp_path / "models" / "m", CONFIG)
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "model.safetensors").write_bytes(weights(TENSORS))
    return folder
