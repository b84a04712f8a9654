"""The warnings about a job that its config and a glance at its table give before it runs.

Only prepare_data reads the whole table, and then tells what it changed; a client has no pandas.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.ignored import ignored
from nss_train.config.sections.reading import Types, as_written
from nss_train.contract import ModelPolicy
from nss_train.cost.cost import Cost
from nss_train.formats import MARKERS, kind_of
from nss_train.model_names import missing_models, models_in
from nss_train.text.counted import counted

_HEAD_BYTES = 2**16
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_LEADING_ZERO = re.compile(r"[+-]?0\d", re.ASCII)
_SHOWN_WORDS = 5


def foreseen(
    table: Path | None,
    config: SafeSynthesizerParameters,
    given: Mapping[str, Any],
    *,
    models: ModelPolicy | None = None,
) -> Iterator[str]:
    """Yield the warnings about a checked job; ``given`` is its config before it was parsed.

    ``table`` is ``None`` for one that is not here. ``models`` is given where the job runs on other machines,
    which may have other base models than this one.
    """
    if models is not None and models_in(Path(models.models_dir)):
        yield from (
            f"{problem}. The job ends there unless the workers have it"
            for problem in missing_models(config, models)
        )
    yield from ignored(config, given)
    yield from _too_short(config)
    if table is not None:
        yield from _changed_cells(table, config)


def _too_short(config: SafeSynthesizerParameters) -> Iterator[str]:
    """Yield a warning if the config allows next to no steps; a private training's depend on its plan."""
    records = config.training.num_input_records_to_sample
    if isinstance(records, int) and not config.dp_enabled:
        most = math.ceil(records / config.training.effective_batch_size)
        yield from (f"at most {one}" for one in Cost(steps=most, full_steps=most, tokens=0).warnings())


def _changed_cells(path: Path, config: SafeSynthesizerParameters) -> Iterator[str]:
    """Yield a warning for each column of a plain CSV file whose first cells would change.

    A file in doubt is left to prepare_data: other encodings, marks and formats, and rows that do not fit.
    """
    head = _head(path, config)
    if head is None:
        return
    header, *rows = head
    for name, cells in zip(header, zip(*rows, strict=True), strict=True):
        if name not in config.reading.columns and (found := _changes(cells)):
            seen = f"among the first {counted(len(rows), 'row')}"
            yield f"{name}: {'; '.join(found)}, {seen}. {as_written(name)}"


def _head(path: Path, config: SafeSynthesizerParameters) -> list[list[str]] | None:
    """Return the header and the first rows of a file as NSS reads it; ``None`` if that is in doubt."""
    kind, reading = kind_of(path.name), config.reading
    is_plain = kind is not None and kind.suffix == ".csv" and kind.compression is None
    if not is_plain or config.dp_enabled or reading.types is Types.FAITHFUL or reading.marks():
        return None
    with path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
    whole = len(data) < _HEAD_BYTES
    try:
        text = (data if whole else data[: data.rfind(b"\n") + 1]).decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(keepends=True), strict=True) if row]
    except (UnicodeDecodeError, csv.Error):
        return None
    fits = len(rows) > 1 and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows)
    return rows if fits else None


def _changes(cells: Sequence[str]) -> list[str]:
    """Return what would change of a column's cells, in the words of the comparison with the whole file."""
    words = Counter(cell for cell in cells if cell in MARKERS and cell)
    shown = ", ".join(word for word, _ in words.most_common(_SHOWN_WORDS))
    found = [f"{counted(words.total(), 'cell')} read as missing (null): {shown}"] if words else []
    values = [cell.strip() for cell in cells if cell not in MARKERS]
    if not values or not all(map(_NUMBER.fullmatch, values)):
        return found
    if zeros := sum(_LEADING_ZERO.match(value) is not None for value in values):
        found.append(f"leading zeros lost in {counted(zeros, 'cell')}")
    whole = sum(_WHOLE.fullmatch(cell) is not None for cell in cells)
    if whole == len(values) < len(cells):
        found.append(f"whole numbers trained as floats (3 as 3.0) in {counted(whole, 'cell')}")
    return found
