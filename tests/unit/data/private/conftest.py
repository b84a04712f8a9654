"""A reader of private CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import TableLimits
from nss_train.data.private.reading import read_private_table
from nss_train.data.private.table import PrivateTable
from tests.unit.data.private.reads import guarantee


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., PrivateTable]:
    def read(content: bytes, columns: dict[str, Any] | None = None, **more: Any) -> PrivateTable:
        (tmp_path / "t.csv").write_bytes(content)
        return read_private_table(
            tmp_path / "t.csv", guarantee(columns, **more), TableLimits(cell_chars=1_000)
        )

    return read
