"""The sampling of rows from a trained adapter, as NSS generates them."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from nss_train.artifacts.files import read_json
from nss_train.artifacts.records import (
    Row,
    Validator,
    parse_completion,
    relax_numeric_bounds,
    schema_validator,
)
from nss_train.artifacts.sampling import Sampling
from nss_train.errors import ParameterError, Problem

logger = logging.getLogger(__name__)


class Stopped(StrEnum):
    """The reason why sampling ended."""

    COMPLETE = "complete"
    PATIENCE = "patience"
    """Too many consecutive rounds were mostly invalid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """The sampled rows. Counts cover every finished record, including those beyond the requested rows."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    valid: int
    invalid: int
    reasons: dict[str, int]
    """Number of invalid records by class, with the column that caused them."""
    examples: dict[str, str]
    """Message of the first invalid record of each class."""
    stopped: Stopped
    seconds: float
    """Time of the generation alone, without loading."""
    tokens: int


@dataclass(kw_only=True, slots=True)
class _Tally:
    rows: list[Row] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    bad_rounds: int = 0

    def add(self, completions: list[str], validator: Validator, threshold: float) -> int:
        """Count one round, and return its number of candidates."""
        parsed = [parse_completion(text, validator) for text in completions]
        valid = [row for records in parsed for row in records.valid]
        invalid = [record for records in parsed for record in records.invalid]
        self.rows += valid
        for record in invalid:
            self.reasons[record.told] += 1
            self.examples.setdefault(record.told, record.message)
        found = len(valid) + len(invalid)
        mostly_invalid = not valid or len(invalid) / found >= threshold
        self.bad_rounds = self.bad_rounds + 1 if mostly_invalid else 0
        return found

    def wanted(self, rows: int) -> int:
        """Return the records to request next: the missing rows divided by the share that was valid so far.

        It is at most four times the missing rows, so that a bad start does not cost a huge round.
        """
        missing, finished = rows - len(self.rows), len(self.rows) + self.reasons.total()
        share = len(self.rows) / finished if finished else 1.0
        return math.ceil(missing / max(share, 0.25))


def sample(
    base: Path,
    adapter: Path,
    *,
    rows: int,
    seed: int | None = None,
    sampling: Sampling | None = None,
) -> Preview:
    """Sample until there are ``rows`` valid rows, or ``sampling.patience`` consecutive rounds have failed.

    Args:
        base: Folder of the base model (safetensors, config, tokenizer).
        adapter: ``train/adapter`` of a run folder.
        rows: Valid rows wanted, at least 1.
        seed: The same seed on the same machine gives the same rows; None draws one.
        sampling: Temperature and limits; None means NSS's defaults.

    Raises:
        ParameterError: ``rows`` is below 1, or ``base`` is not a model folder.
        DataError: ``adapter`` is not complete.
        GenerationError: the prompt leaves no room in the model's context.
    """
    from nss_train.artifacts.generator import Generator

    _check(base, rows)
    options = sampling or Sampling()
    metadata, schema = read_json(adapter / "metadata_v2.json"), read_json(adapter / "dataset_schema.json")
    checked = schema if options.enforce_numeric_range else relax_numeric_bounds(schema)
    columns = tuple(schema["properties"])
    generator = Generator.load(base, adapter, metadata=metadata, columns=columns, sampling=options, seed=seed)
    started = time.monotonic()
    tally = _collect(generator, schema_validator(checked), rows, options)
    return _preview(tally, columns, rows, time.monotonic() - started)


def _collect(generator: Any, validator: Validator, rows: int, options: Sampling) -> _Tally:
    tally = _Tally()
    scale = 1
    while len(tally.rows) < rows and tally.bad_rounds < options.patience:
        completion = generator.run(tally.wanted(rows), scale=scale)
        tally.tokens += completion.tokens
        found = tally.add(completion.texts, validator, options.invalid_fraction_threshold)
        scale = scale * 2 if not found else scale  # records may be longer than the estimate
        logger.info(
            "%d of %d rows after %d tokens",
            len(tally.rows),
            rows,
            tally.tokens,
            extra={"action": "preview.round"},
        )
    return tally


def _preview(tally: _Tally, columns: tuple[str, ...], rows: int, seconds: float) -> Preview:
    return Preview(
        rows=tuple(tally.rows[:rows]),
        columns=columns,
        valid=len(tally.rows),
        invalid=tally.reasons.total(),
        reasons=dict(tally.reasons.most_common()),
        examples=tally.examples,
        stopped=Stopped.COMPLETE if len(tally.rows) >= rows else Stopped.PATIENCE,
        seconds=seconds,
        tokens=tally.tokens,
    )


def _check(base: Path, rows: int) -> None:
    problems = []
    if rows < 1:
        problems.append(Problem(field="rows", value=rows, remedy="ask for at least 1"))
    if not (base / "config.json").is_file():
        remedy = "name the folder of the base model that the adapter was trained on"
        problems.append(Problem(field="base", value=str(base), remedy=remedy))
    if problems:
        raise ParameterError("Cannot sample.", problems)
