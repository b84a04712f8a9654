"""The plan and cost of a private training on a table: ``python -m nss_train.privacy estimate --help``.

It runs in a process of its own because only it needs pandas. Nothing is trained, charged or drawn: it is for
the table's owner, and its statements about the table are exact.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nss_train import command
from nss_train.config import SafeSynthesizerParameters, load_config, parse_config
from nss_train.config.support import unsupported_training
from nss_train.data.assembly.packing import nothing_to_train_on
from nss_train.data.auto_values import resolve_privately
from nss_train.data.columns import check_named_roles
from nss_train.data.private.reading import read_private_table
from nss_train.data.private.table import PrivateTable
from nss_train.errors import ParameterError, Problem
from nss_train.model.family import FAMILIES
from nss_train.privacy.accounting.accountant import Accountant
from nss_train.privacy.accounting.plan import KNOWN_AS, PrivacyPlan, Source
from nss_train.privacy.draw import InMemory
from nss_train.privacy.schema.publication import Publisher
from nss_train.privacy.schema.published_schema import Types
from nss_train.privacy.schema.unit_count import public_units
from nss_train.privacy.units import UnitLimits, find_units

POINTS = 10
"""Points of the curve ε(t)."""


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.privacy", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="estimate")
    estimating = commands.add_parser("estimate", description=__doc__)
    estimating.add_argument("table", type=Path)
    estimating.add_argument("--config", type=Path, help="NSS YAML or JSON with privacy.dp_enabled")
    estimating.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    return command.run(lambda: show(arguments), show=_show, as_json=arguments.json)


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the plan of the table that the command line names."""
    config = parse_config({}) if arguments.config is None else load_config(arguments.config)
    return describe(plan_of(arguments.table, config))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A plan, with further facts that only the table's owner may know."""

    plan: PrivacyPlan
    effective: int
    """Exact number of units with a non-null record; long records count, because there is no model."""
    config: SafeSynthesizerParameters
    """The config, resolved except for δ."""
    types: Types
    places: int


def plan_of(table: Path, config: SafeSynthesizerParameters) -> Estimate:
    """Return the plan that prepare_data would make; raise what is wrong with table or config.

    Where the job will count units with noise, the exact number stands in for the noisy one.
    """
    if not config.dp_enabled:
        problem = Problem(field="privacy.dp_enabled", value=False, remedy="set it to true")
        raise ParameterError("The config asks for no privacy.", [problem])
    problems = unsupported_training(config)
    if problems:
        raise ParameterError("The config asks for what a private training cannot do.", problems)
    read = read_private_table(table, config.guarantee)
    check_named_roles([column.name for column in read.columns], config)
    # The family decides the learning rate alone, and that costs no privacy.
    resolved = resolve_privately(config, family=FAMILIES[0])
    if resolved.config.training.num_input_records_to_sample == 0:
        raise nothing_to_train_on()
    publisher = Publisher(
        resolved=resolved,
        types=read.types,
        places=len(read),
        dataset=config.guarantee.dataset or "estimate",
        holds_out=True,
        keeper=InMemory(),
    )
    effective = count_units(read, resolved.config)
    known = public_units(resolved.config, places=len(read))
    return Estimate(
        plan=publisher.plan(max(1, effective) if known is None else known),
        effective=effective,
        config=resolved.config,
        types=read.types,
        places=len(read),
    )


def count_units(table: PrivateTable, config: SafeSynthesizerParameters) -> int:
    """Return the number of units with a non-null record, whatever its length."""
    lengths = np.zeros(len(table), dtype=np.int64)
    return len(find_units(table, lengths, config, UnitLimits(tokens_per_record=0)))


def describe(found: Estimate) -> dict[str, Any]:
    """Return the plan as plain JSON, with ε after each tenth of the steps."""
    plan = found.plan
    steps = sorted({max(1, round(plan.steps * point / POINTS)) for point in range(1, POINTS + 1)})
    curve = [
        {"step": step, "pld": plan.spent(step), "rdp": plan.spent(step, Accountant.RDP)} for step in steps
    ]
    document = plan.model_dump(mode="json", exclude={"dataset", "without_effect"})
    return {**document, "promise": plan.promise(), "effective": found.effective, "curve": curve}


def _show(shown: dict[str, Any]) -> None:
    sys.stdout.write(in_words(shown) + "\n")


def in_words(shown: dict[str, Any]) -> str:
    """Return the plan in words."""
    source = Source(shown["units_source"])
    exact = "; here exactly, in the job with noise" if source is Source.NOISY else ""
    lines = [
        shown["promise"],
        "",
        f"n      {shown['units']} units of privacy, each a {shown['unit']} ({KNOWN_AS[source]}{exact})",
        f"       {shown['effective']} of them hold something; that is not published",
        f"h      {shown['holdout']:g} of them are held out, on average",
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
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
