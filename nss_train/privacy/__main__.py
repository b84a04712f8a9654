"""What a private training of a table would do and cost: ``python -m nss_train.privacy estimate --help``.

A process of its own, because it needs pandas and nobody else does. Nothing is trained and nothing
is charged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from nss_train import command
from nss_train.config import SafeSynthesizerParameters, load_config, parse_config
from nss_train.config.resolve import resolve, unit_column
from nss_train.config.support import unsupported_training
from nss_train.data.columns import check_columns, check_roles, check_rows
from nss_train.data.holdout import hold_out
from nss_train.data.packing import requested_fraction
from nss_train.data.source import read_table
from nss_train.errors import ParameterError, Problem
from nss_train.model.family import FAMILIES
from nss_train.privacy.accountant import Accountant
from nss_train.privacy.plan import PrivacyPlan, Units
from nss_train.privacy.publication import kind_of_units

POINTS = 10
"""Of the curve ε(t)."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nss_train.privacy", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="estimate")
    estimating = commands.add_parser("estimate", description=__doc__)
    estimating.add_argument("table", type=Path)
    estimating.add_argument("--config", type=Path, help="NSS YAML or JSON with privacy.dp_enabled")
    estimating.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    return command.run(lambda: show(arguments), show=_show, as_json=arguments.json)


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    """The plan of what the command line names."""
    config = parse_config({}) if arguments.config is None else load_config(arguments.config)
    return describe(estimate(arguments.table, config))


def estimate(table: Path, config: SafeSynthesizerParameters) -> PrivacyPlan:
    """The plan that prepare_data would make; raises what is wrong with table or config."""
    if not config.dp_enabled:
        problem = Problem(field="privacy.dp_enabled", value=False, remedy="set it to true")
        raise ParameterError("The config asks for no privacy.", [problem])
    problems = unsupported_training(config)
    if problems:
        raise ParameterError("The config asks for what a private training cannot do.", problems)
    frame = read_table(table)
    check_columns(frame)
    check_rows(frame, config)
    check_roles(frame, config)
    training = hold_out(frame, config.data, unit_column=unit_column(config)).train
    # The family decides the learning rate alone, and that costs no privacy.
    resolved = resolve(config, training, family=FAMILIES[0]).config
    return PrivacyPlan.of(resolved, count_units(training, resolved), dataset=table.stem)


def count_units(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> Units:
    """The units of privacy of a training split, and the passes that a resolved config asks for."""
    column, wanted = unit_column(config), config.training.num_input_records_to_sample
    if column is not None and column not in frame.columns:
        problem = Problem(
            field="guarantee.unit_column", value=column, remedy="name one of the table's columns"
        )
        raise ParameterError("The unit column is not in the table.", [problem])
    count = len(frame) if column is None else frame[column].nunique()
    return Units(kind=kind_of_units(config), count=count, passes=requested_fraction(wanted, count))


def describe(plan: PrivacyPlan) -> dict[str, Any]:
    """The plan as plain JSON, with ε after a tenth of the steps, two tenths and so on."""
    steps = sorted({max(1, round(plan.steps * point / POINTS)) for point in range(1, POINTS + 1)})
    curve = [
        {"step": step, "pld": plan.spent(step), "rdp": plan.spent(step, Accountant.RDP)} for step in steps
    ]
    return {**plan.model_dump(mode="json", exclude={"dataset"}), "curve": curve}


def _show(shown: dict[str, Any]) -> None:
    lines = [
        f"n      {shown['units']} units of privacy, each a {shown['unit']}",
        f"batch  {shown['batch']} units expected in a step",
        f"q      {shown['sampling_rate']:.6g}",
        f"steps  {shown['steps']}",
        f"sigma  {shown['noise_multiplier']:.6g}",
        f"for epsilon {shown['epsilon']:g} at delta {shown['delta']:.3g}",
        *(f"       of which the {p['name']} takes epsilon {p['epsilon']:g}" for p in shown["by_products"]),
        "",
        f"{'step':>8}  {'epsilon (PLD)':>13}  {'(RDP)':>8}",
        *(f"{p['step']:>8}  {p['pld']:>13.4f}  {p['rdp']:>8.4f}" for p in shown["curve"]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
