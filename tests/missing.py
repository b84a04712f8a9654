"""What a test needs and does not find on this machine."""

from __future__ import annotations

import os

import pytest


def missing(why: str) -> BaseException:
    """Return what skips the test, with the reason; in CI, where everything has to be there, what fails it."""
    end = pytest.fail if os.environ.get("CI") else pytest.skip
    return end.Exception(f"not run: {why}")
