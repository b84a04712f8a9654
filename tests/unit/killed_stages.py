"""A stage that dies at its worst moment, for tests of the process around stages."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from nss_train.contract import Report, Request


def prepare_data(_folder: Path, _request: Request, *, report: Report) -> None:
    """Unpack a table as readers do, and be killed before the copy is deleted."""
    Path(tempfile.mkdtemp(), "table.csv").write_text("name\nAnn\n")
    os.kill(os.getpid(), signal.SIGKILL)
