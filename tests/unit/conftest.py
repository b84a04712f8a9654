"""No test here starts a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest

from tasks.execution.processes.hosts import Hosts

WHERE = "tests/unit needs no server: a test that does belongs to tests/integration"


@pytest.fixture(scope="session")
def valkey() -> NoReturn:
    pytest.fail(WHERE)


@pytest.fixture(scope="session")
def s3() -> NoReturn:
    pytest.fail(WHERE)


@pytest.fixture(scope="session")
def warm() -> Iterator[Hosts]:
    """Return warm hosts, each started when a stage first asks for it."""
    hosts = Hosts()
    yield hosts
    hosts.close()
