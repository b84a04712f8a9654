"""Report of what was compared, set by set."""

from __future__ import annotations

import pytest

_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def parity_table(pytestconfig: pytest.Config) -> list[str]:
    return pytestconfig.stash.setdefault(_LINES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("golden sets")
        for line in sorted(lines):
            terminalreporter.write_line(line)
