"""Audit the private step of this installation: ``python -m nss_train.privacy.audit --help``.

Exit code 1 when its claim does not hold, or when a planted fault is not found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nss_train.privacy.audit.faults import planted
from nss_train.privacy.audit.verdict import Verdict, audit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nss_train.privacy.audit", description=__doc__)
    parser.add_argument("--faults", action="store_true", help="audit steps with planted faults too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    # Its tensors are so small that threads only wait for each other.
    torch.set_num_threads(1)
    verdict = audit()
    faults = planted() if arguments.faults else {}
    found = verdict.holds and not any(fault.holds for fault in faults.values())
    if arguments.json:
        sys.stdout.write(json.dumps(_document(verdict, faults)) + "\n")
    else:
        _show(verdict, faults)
    return 0 if found else 1


def _document(verdict: Verdict, faults: Mapping[str, Verdict]) -> dict[str, Any]:
    described = {name: fault.as_json() for name, fault in faults.items()}
    return verdict.as_json() | ({"faults": described} if faults else {})


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
