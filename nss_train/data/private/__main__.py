"""What a private training would make of a table, exactly: ``python -m nss_train.data.private --help``.

For whoever has the table, on their own machine: nothing is stored or sent. A job may say none of this.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nss_train import command
from nss_train.config import SafeSynthesizerParameters, load_config, parse_config
from nss_train.config.sections.guarantee import GuaranteeParameters, PublicColumn
from nss_train.contract import TableLimits
from nss_train.data.auto_values import unit_column
from nss_train.data.private.declarations import column_problem
from nss_train.data.private.files.json_lines import keys
from nss_train.data.private.files.lines import lines
from nss_train.data.private.files.preconditions import check_file, refuse
from nss_train.data.private.findings import Examined, Fit, describe
from nss_train.data.private.proposals import WARNING, as_yaml, propose
from nss_train.data.private.reading import read_cells
from nss_train.data.private.values.coding import Fault

SHOWN_COLUMNS = 40


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.data.private", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--config", type=Path, help="NSS YAML or JSON; NSS's defaults without it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    return command.run(lambda: show(arguments), show=_show, as_json=arguments.json)


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the findings about the table and config of the command line."""
    config = parse_config({}) if arguments.config is None else load_config(arguments.config)
    return check(arguments.table, config)


def check(table: Path, config: SafeSynthesizerParameters) -> dict[str, Any]:
    """Return findings, advice and proposed declarations; raise what a private training would refuse."""
    limits = TableLimits()
    check_file(table, limits)
    undeclared = _undeclared_keys(table, config.guarantee, limits)
    guarantee = config.guarantee.model_copy(update={"columns": {**config.guarantee.columns, **undeclared}})
    read = read_cells(table, guarantee, limits)
    column = unit_column(config)
    refuse([] if column is None else column_problem(column, list(read.columns)))
    found = Examined.of(read, guarantee, limits)
    proposed = propose(read, guarantee.columns)
    described = describe(found, unit_column=column)
    return {
        **described,
        "undeclared_keys": list(undeclared),
        "advice": list(_advice(described, guarantee)),
        "proposal": as_yaml(proposed) if proposed else "",
        "warning": WARNING,
    }


def _undeclared_keys(
    table: Path, guarantee: GuaranteeParameters, limits: TableLimits
) -> dict[str, PublicColumn]:
    """Return the undeclared keys of JSON Lines, in order of appearance."""
    if table.suffix.lower() not in (".json", ".jsonl"):
        return {}
    found = dict.fromkeys(name for line in lines(table) for name in keys(line, limits.depth))
    return {name: PublicColumn() for name in found if name not in guarantee.columns}


def _advice(described: dict[str, Any], guarantee: GuaranteeParameters) -> Iterator[str]:
    open_quotes = described["faults"].get(Fault.OPEN_QUOTE.value, {}).get("count", 0)
    if open_quotes:
        yield (
            f"{open_quotes} lines open a quote that they do not close. If cells hold line breaks, give the"
            " table as Parquet or JSON Lines, or set guarantee.multiline_cells: true"
        )
    for name, column in described["columns"].items():
        odd = {fit: n for fit, n in column["counts"].items() if fit not in (Fit.NULL, Fit.FITS)}
        if odd:
            counted = ", ".join(f"{count} are {fit}" for fit, count in odd.items())
            yield f"of the values of {name}, {counted}; the first stand at {_listed(column['first'])}"
        nulls = column["counts"].get(Fit.NULL, 0)
        if nulls and not column["nullable"]:
            yield f"{name} is declared without nulls and has {nulls}: these records count for nothing"
    units, most = described["units"], guarantee.max_records_per_unit
    if units.get("records_beyond_the_limit"):
        yield f"{units['records_beyond_the_limit']} records are left out: their units have more than {most}"
    if units.get("records_without_a_unit"):
        yield f"{units['records_without_a_unit']} records have no unit and count for nothing"


def _show(shown: dict[str, Any]) -> None:
    units = shown["units"]
    lines_ = [
        f"{shown['places']} places, {shown['null_records']} of them null records",
        f"{units['count']} units, each a {units['unit']}"
        + (f"; the largest has {units['largest']} records" if "largest" in units else ""),
        *(
            f"{fault['count']} lines are no record: {name}, the first at {_listed(fault['first'])}"
            for name, fault in shown["faults"].items()
        ),
        *shown["advice"],
        "",
        *(_column_line(name, column) for name, column in list(shown["columns"].items())[:SHOWN_COLUMNS]),
    ]
    if shown["proposal"]:
        lines_ += ["", "# proposed declarations", *shown["proposal"].splitlines()]
    lines_ += ["", shown["warning"]]
    sys.stdout.write("\n".join(lines_) + "\n")


def _column_line(name: str, column: dict[str, Any]) -> str:
    counted = ", ".join(f"{count} {fit}" for fit, count in column["counts"].items())
    return f"{name:<24} {column['type']:<9} {counted}"


def _listed(places: list[int]) -> str:
    return ", ".join(map(str, places))


if __name__ == "__main__":
    sys.exit(main())
