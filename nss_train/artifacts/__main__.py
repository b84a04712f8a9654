"""``python -m nss_train.artifacts RUN_FOLDER --base MODEL_FOLDER``: sample rows from a trained adapter.

It is a process of its own, so that a caller need not load torch. Exit codes are those of
:mod:`nss_train.errors`: 2 for a wrong request, 3 for a fault of the machine or a file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from nss_train import command
from nss_train.artifacts.files import read_json
from nss_train.artifacts.preview import Preview, sample
from nss_train.artifacts.sampling import Sampling
from nss_train.artifacts.table import row_table, write_csv
from nss_train.artifacts.workdir import ADAPTER, CONFIG
from nss_train.errors import ParameterError, Problem


def main(arguments: Sequence[str] | None = None) -> int:
    """Sample and print rows, and return the exit code."""
    options = _parser().parse_args(arguments)
    _quiet_libraries()
    return command.run(lambda: _write(options), show=_show, as_json=options.json)


def _write(options: argparse.Namespace) -> dict[str, Any]:
    preview = _sample(options)
    if options.csv:
        write_csv(options.csv, preview.rows, preview.columns)
    return asdict(preview)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(prog="python -m nss_train.artifacts", description="Sample rows.")
    parser.add_argument("run_folder", type=Path, help="what save_model made: train/, dataset/")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--rows", type=int, default=10, help="valid rows wanted (10)")
    parser.add_argument("--seed", type=int, help="same seed, same rows; drawn when left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--csv", type=Path, help="also write the rows to this file")
    return parser


def _sample(options: argparse.Namespace) -> Preview:
    config = read_json(options.run_folder / CONFIG)
    _check_tabular(config)
    return sample(
        options.base,
        options.run_folder / ADAPTER,
        rows=options.rows,
        seed=options.seed,
        sampling=Sampling.of(config["generation"]),
    )


def _check_tabular(config: dict[str, Any]) -> None:
    """Refuse grouped and time-series adapters: this sampler cannot read their output."""
    remedy = "a preview can be sampled of ungrouped tables only"
    problems = []
    if (grouped := config["data"].get("group_training_examples_by")) is not None:
        problems.append(Problem(field="data.group_training_examples_by", value=grouped, remedy=remedy))
    if config["time_series"].get("is_timeseries"):
        problems.append(Problem(field="time_series.is_timeseries", value=True, remedy=remedy))
    if problems:
        raise ParameterError("Cannot sample from this adapter.", problems)


def _quiet_libraries() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def _show(found: dict[str, Any]) -> None:
    console = Console()
    console.print(row_table(found["rows"], found["columns"]))
    total = found["valid"] + found["invalid"]
    share = f"{100 * found['valid'] / total:.0f}%" if total else "none"
    console.print(
        f"{found['valid']} of {total} records valid ({share}), "
        f"{found['tokens']} tokens in {found['seconds']:.1f} s ({found['stopped']})"
    )
    for reason, count in found["reasons"].items():
        console.print(f"{count} × {reason}: {found['examples'][reason]}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
