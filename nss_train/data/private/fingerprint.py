"""The fingerprint of a private table, left for the supervisor of the stage and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nss_train.contract import SKETCH, SKETCH_KEY
from nss_train.data.private.table import PrivateTable
from nss_train.privacy.sketch import canonical_cell, canonical_record, sketch


def leave_sketch(folder: Path, table: PrivateTable, *, unit_column: str | None) -> None:
    """Write the sketch of a table beside the stage's outputs, if the deployment has a key for it."""
    key = folder / "in" / SKETCH_KEY
    if key.is_file():
        values = () if unit_column is None else _units(table, unit_column)
        found = sketch(_records(table), values, key=key.read_bytes())
        (folder / SKETCH).write_text(found.model_dump_json(), encoding="utf-8")


def _records(table: PrivateTable) -> Iterator[bytes]:
    cells = {name: [canonical_cell(cell) for cell in raw.cells] for name, raw in table.raw.items()}
    for place in (~table.null).nonzero()[0]:
        yield canonical_record(
            {name: cells[name][code] for name, raw in table.raw.items() if (code := raw.codes[place]) >= 0}
        )


def _units(table: PrivateTable, column: str) -> Iterator[bytes]:
    for cell in table.raw[column].cells:
        value = canonical_cell(cell)
        if value is not None:
            yield value
