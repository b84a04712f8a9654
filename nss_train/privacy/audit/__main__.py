"""Audit the private step, or a table's path to it: ``python -m nss_train.privacy.audit --help``.

The exit code is 1 when the claim does not hold, when neighbours of the table can be distinguished, or when
a planted fault is not found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nss_train import command
from nss_train.config import load_config, parse_config
from nss_train.privacy.audit.faults import planted
from nss_train.privacy.audit.neighbours.own_table import PAIRS, audit_table
from nss_train.privacy.audit.neighbours.planted.faults import FAULTS, replays_of_faults
from nss_train.privacy.audit.neighbours.replay import Replay
from nss_train.privacy.audit.verdict import Verdict, audit


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.privacy.audit", description=__doc__)
    parser.add_argument("--faults", action="store_true", help="audit steps with planted faults too")
    parser.add_argument("--from-file", type=Path, help="a table, of which neighbours are compared")
    parser.add_argument("--config", type=Path, help="of the job on it: NSS YAML or JSON")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="neighbours of the table")
    parser.add_argument("--models", type=Path, default=Path(), help="folder of base models")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.from_file is not None:
        return _from_file(arguments)
    # The tensors are so small that threads only wait for each other.
    torch.set_num_threads(1)
    verdict = audit()
    faults = planted() if arguments.faults else {}
    replays = replays_of_faults() if arguments.faults else {}
    found = (
        verdict.holds
        and not any(fault.holds for fault in faults.values())
        and all(FAULTS[name].seen_by <= set(seen.seen_by) for name, seen in replays.items())
    )
    if arguments.json:
        sys.stdout.write(json.dumps(_document(verdict, faults, replays)) + "\n")
    else:
        _show(verdict, faults)
        if replays:
            Console(highlight=False).print(_replay_table(replays))
    return 0 if found else 1


def _from_file(arguments: argparse.Namespace) -> int:
    """Print what distinguishes the table from its neighbours; return the exit code."""
    status = 0

    def compare() -> dict[str, Any]:
        nonlocal status
        config = parse_config({}) if arguments.config is None else load_config(arguments.config)
        found = audit_table(arguments.from_file, config, models=arguments.models, pairs=arguments.pairs)
        status = 0 if found["holds"] else 1
        return found

    return command.run(compare, show=_show_replay, as_json=arguments.json) or status


def _show_replay(found: dict[str, Any]) -> None:
    lines = [
        f"{found['pairs']} neighbours of the table went through prepare_data with the same secrets:",
        *(f"  {number:>5}  {kind}" for kind, number in found["edits"].items()),
        "compared: published files, events, log lines, figures and errors; the inputs of noisy releases;",
        "  tokens and sides of the split of all other units; digests of private pieces",
        *(f"  differs: {difference}" for difference in found["differences"]),
        "nothing tells them apart" if found["holds"] else "they can be told apart",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _document(
    verdict: Verdict, faults: Mapping[str, Verdict], replays: Mapping[str, Replay]
) -> dict[str, Any]:
    described = {name: fault.as_json() for name, fault in faults.items()}
    seen = {name: dict(found.seen_by) for name, found in replays.items()}
    return verdict.as_json() | ({"faults": described, "faults_before_the_step": seen} if faults else {})


def _replay_table(replays: Mapping[str, Replay]) -> Table:
    table = Table("fault before the step", "differences", "flagged by")
    for name, found in replays.items():
        table.add_row(name, str(len(found.found)), ", ".join(sorted(found.seen_by)) or "nothing")
    return table


def _show(verdict: Verdict, faults: Mapping[str, Verdict]) -> None:
    console = Console(highlight=False)
    console.print(f"claimed  ε = {verdict.epsilon:.4f} at δ = {verdict.delta:g}")
    console.print(f"audited  ε ≥ {verdict.epsilon_lower_bound:.4f} with {verdict.confidence:.3%} confidence")
    checks = Table("p-value", "should be true")
    for check in verdict.checks:
        checks.add_row(f"{check.p_value:.2g}", check.statement)
    console.print(checks)
    if faults:
        console.print(_fault_table(faults))
    flags = ", ".join(verdict.flagged_by)
    console.print("the claim holds" if verdict.holds else f"the claim does not hold, by: {flags}")


def _fault_table(faults: Mapping[str, Verdict]) -> Table:
    table = Table("planted fault", "audited ε", "flagged by")
    for name, fault in faults.items():
        table.add_row(name, f"{fault.epsilon_lower_bound:.2f}", ", ".join(fault.flagged_by) or "nothing")
    return table


if __name__ == "__main__":
    sys.exit(main())
