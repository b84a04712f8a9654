"""The environment of a stage in a test: without what pytest changes between two tests.

A warm host serves one environment, and is started again for another.
"""

from __future__ import annotations

from tasks.settings import child_environment


def stage_environment() -> dict[str, str]:
    return {name: value for name, value in child_environment().items() if name != "PYTEST_CURRENT_TEST"}
