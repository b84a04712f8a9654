"""The files that prepare_data writes, and the figures that ``status`` shows about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nss_train.contract import Request
from nss_train.cost.cost import COST
from nss_train.cost.work import WORK, work_of

if TYPE_CHECKING:
    from nss_train.data.prepared import Prepared

MOST_WARNINGS = 50
"""Most warnings that are shown in messages and on screens."""


def write(out: Path, prepared: Prepared, request: Request, *, model: Mapping[str, object]) -> dict[str, Any]:
    """Write everything that the later stages read; return the figures worth showing.

    ``model`` is the base model's ``config.json``.

    ``statistics.json`` and the ``*.arrow`` files are not published: training needs their exact values.
    """
    work = work_of(prepared)
    cost = work.cost(model, prepared.config.training)
    for name, document in (_documents(prepared, request) | {WORK: work.model_dump()}).items():
        (out / f"{name}.json").write_text(json.dumps(document, indent=4), encoding="utf-8")
    prepared.train.write(out / "train.arrow")
    if prepared.validation is not None:
        prepared.validation.write(out / "validation.arrow")
    if prepared.assembled.membership is not None:
        prepared.assembled.membership.write(out / "units.arrow")
    for name, frame in _tables(prepared):
        frame.to_csv(out / f"{name}.csv", index=False)
    return {**_figures(prepared), COST: cost.model_dump(), "seed": request.seed}


def _documents(prepared: Prepared, request: Request) -> dict[str, Any]:
    found = {
        "config": prepared.config.model_dump(mode="json"),
        "choices": [{"name": c.name, "value": c.value, "reason": c.reason} for c in prepared.choices],
        "schema": prepared.schema,
        "metadata": prepared.metadata.as_json(dataset_name=request.dataset_name, run_name=request.job_id),
        "statistics": {name: series.as_json() for name, series in prepared.statistics.items()},
    }
    if not prepared.config.dp_enabled:
        found["warnings"] = list(prepared.warnings)
    return found | _privacy(prepared)


def _privacy(prepared: Prepared) -> dict[str, Any]:
    return {} if prepared.plan is None else {"privacy": prepared.plan.model_dump(mode="json")}


def _tables(prepared: Prepared) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the parts of the table that may be published: none if it is strictly private."""
    for name, frame in (("training", prepared.training), ("test", prepared.test)):
        if frame is not None and not prepared.config.strictly_private:
            yield name, frame


def first_warnings(warnings: Sequence[str]) -> list[str]:
    """Return the warnings that are shown; ``warnings.json`` has all of them."""
    more = len(warnings) - MOST_WARNINGS
    last = [f"and {more:,} more; prepare_data's log has all"] if more > 0 else []
    return [*warnings[:MOST_WARNINGS], *last]


def _figures(prepared: Prepared) -> dict[str, Any]:
    """Return counts of the table; if it is strictly private, only what is public: its units and columns."""
    public = {"columns": len(prepared.columns), "data_fraction": prepared.data_fraction, **_privacy(prepared)}
    if prepared.plan is not None:
        public["units"] = prepared.plan.units
        public["promise"] = prepared.plan.promise()
    if prepared.config.strictly_private:
        return public
    return (
        public
        | ({"read_as": prepared.read_as} if prepared.read_as else {})
        | ({"warnings": first_warnings(prepared.warnings)} if prepared.warnings else {})
        | {
            "rows": 0 if prepared.training is None else len(prepared.training),
            "rows_held_out": 0 if prepared.test is None else len(prepared.test),
            "examples": len(prepared.train),
            "validation_examples": 0 if prepared.validation is None else len(prepared.validation),
            "tokens": int(prepared.train.tokens_per_example.sum()),
        }
    )
