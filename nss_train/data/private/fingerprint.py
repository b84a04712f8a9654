"""The fingerprint of a private table, which only the supervisor of the stage reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nss_train.contract import SKETCH, SKETCH_KEY
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.privacy.sketch import canonical_cell, canonical_record, sketch


def leave_sketch(folder: Path, table: PrivateTable, *, unit_column: str | None) -> None:
    """Write the sketch of a table beside the stage's outputs, if the deployment has a key for it."""
    key = folder / "in" / SKETCH_KEY
    if key.is_file():
        values = () if unit_column is None else _units(table, unit_column)
        found = sketch(_records(table), values, key=key.read_bytes())
        (folder / SKETCH).write_text(found.model_dump_json(), encoding="utf-8")


def _records(table: PrivateTable) -> Iterator[bytes]:
    cells = {name: _values(raw) for name, raw in table.raw.items()}
    for place in (~table.null).nonzero()[0]:
        yield canonical_record({name: cells[name][raw.codes[place]] for name, raw in table.raw.items()})


def _units(table: PrivateTable, column: str) -> Iterator[bytes]:
    return (value for value in _values(table.raw[column]) if value is not None)


def _values(raw: Raw) -> list[bytes | None]:
    """Return each distinct cell's value; its first byte, the kind of the cell, is ignored here."""
    return [canonical_cell(cell[1:]) for cell in raw.cells]
