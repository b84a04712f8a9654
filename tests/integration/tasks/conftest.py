"""Attempts whose stages need no model, and a folder as their store."""

from __future__ import annotations

import functools

import pytest

from tasks.app import App, make_app
from tasks.execution.processes.supervisor import run_child
from tasks.settings import Settings
from tasks.store.local import LocalStore


@pytest.fixture
def private_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the children run :mod:`tests.integration.tasks.private_stages`."""
    private = functools.partial(run_child, module="tests.integration.tasks.private_stages")
    monkeypatch.setattr("tasks.execution.attempt.run_child", private)


@pytest.fixture
def app(settings: Settings) -> App:
    """Return an application whose broker holds nothing."""
    found = make_app(settings)
    found.redis.flushall()
    return found


@pytest.fixture
def store(settings: Settings) -> LocalStore:
    return LocalStore(settings.home / "store")
