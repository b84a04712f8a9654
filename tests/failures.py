"""A pytest plugin that writes each failure into a file at once: ``-p tests.failures --failures FILE``.

A run that is cut off has then told what it found so far.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_REASON_CHARS = 3_500


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--failures", type=Path, help="File that receives each failure at once.")


def pytest_configure(config: pytest.Config) -> None:
    """Write in one process only: it sees the reports of all."""
    file: Path | None = config.getoption("--failures")
    if file is not None and not hasattr(config, "workerinput"):
        file.unlink(missing_ok=True)
        config.pluginmanager.register(Failures(file))


class Failures:
    """A writer of the name and the reason of each failure."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._write(f"{report.nodeid} [{report.when}] {report.duration:.1f} s", report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(f"{report.nodeid} [collect]", report.longrepr)

    def _write(self, what: str, why: object) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"@@@ {what}\n{str(why)[-_REASON_CHARS:]}\n")
