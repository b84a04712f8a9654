"""No test here starts a server."""

from __future__ import annotations

from typing import NoReturn

import pytest

WHERE = "tests/unit needs no server: a test that does belongs to tests/integration"


@pytest.fixture(scope="session")
def valkey() -> NoReturn:
    pytest.fail(WHERE)


@pytest.fixture(scope="session")
def s3() -> NoReturn:
    pytest.fail(WHERE)
