"""The list of planted mistakes, and what each replay saw of them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from nss_train.privacy.audit.neighbours.corpus import corpus
from nss_train.privacy.audit.neighbours.invented import cheap_plans, write_model
from nss_train.privacy.audit.neighbours.planted import outputs, reading, units
from nss_train.privacy.audit.neighbours.planted.fault import Fault
from nss_train.privacy.audit.neighbours.replay import Replay, replay


def replays_of_faults() -> dict[str, Replay]:
    """Return what distinguishes neighbours under each planted fault."""
    with tempfile.TemporaryDirectory() as root, cheap_plans():
        model = write_model(Path(root))
        return {name: _replay(fault, model) for name, fault in FAULTS.items()}


def _replay(fault: Fault, model: Path) -> Replay:
    with fault.plant():
        return replay(corpus(model), until=fault.seen_by)


FAULTS: Mapping[str, Fault] = {
    "digest as a name": Fault.seen(outputs.digest_as_name, "published", "digests"),
    "digest in a marker": Fault.seen(outputs.written_beside(outputs.marker), "published", "digests"),
    "digest in a log": Fault.seen(outputs.written_beside(outputs.logged), "published", "digests"),
    "sizes of private files": Fault.seen(outputs.written_beside(outputs.sizes), "published"),
    "count of examples": Fault.seen(outputs.count_in_the_figures, "published"),
    "types from the table": Fault.seen(reading.types_of(None), "units"),
    "types from the first rows": Fault.seen(reading.types_of(reading.BATCH), "units"),
    "types per batch": Fault.seen(reading.types_per_batch, "units"),
    "union of JSON Lines' columns": Fault.seen(reading.union_of_columns, "published", "units"),
    "a quote across lines": Fault.seen(reading.quotes_across_lines, "units"),
    "trained nulls": Fault.seen(reading.trained_nulls, "units"),
    "permuted holdout": Fault.seen(units.held_out_by(units.permuted), "units"),
    "holdout by size": Fault.seen(units.held_out_by(units.longest), "units"),
    "distinct values as n": Fault.seen(units.distinct_values_as_n, "published"),
    "records in a count of units": Fault.seen(units.records_in_the_count, "releases"),
    "a second draw": Fault.seen(outputs.own_draw, "published"),
    "refusal by a row": Fault.seen(outputs.refused_by_a_row(shows_it=False), "published"),
    "a cell in an error": Fault.seen(outputs.refused_by_a_row(shows_it=True), "published"),
}
