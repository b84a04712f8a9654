"""What a training of a table would do and cost: ``python -m nss_train.cost --help``.

A process of its own, because it needs pandas and torch and nobody else does. Nothing is trained, nothing is
charged and nothing is drawn.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nss_train import command
from nss_train.config import SafeSynthesizerParameters, load_config, parse_config
from nss_train.contract import ModelPolicy
from nss_train.cost.cost import COST, Cost
from nss_train.cost.measure import measured_cost
from nss_train.cost.work import work_of
from nss_train.errors import ParameterError
from nss_train.model.local.source import ModelSource, find_model

if TYPE_CHECKING:
    from nss_train.data.prepared import Prepared

SEED = 1
"""Seed of shuffles and splits: no figure depends on it by more than a few tokens."""


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.cost", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--config", type=Path, help="NSS YAML or JSON; NSS's defaults without it")
    parser.add_argument("--models", type=Path, required=True, help="folder of the base models")
    parser.add_argument("--paces", type=Path, required=True, help="folder of what was measured before")
    parser.add_argument("--family", default="", help="family of the base model, if its files do not name it")
    parser.add_argument("--allow-hub", action="store_true", help="whether it may be downloaded")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.ERROR)
    return command.run(lambda: estimate(arguments), show=_show, as_json=arguments.json)


def estimate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of a training, with the plan if it is private."""
    config = parse_config({}) if arguments.config is None else load_config(arguments.config)
    policy = ModelPolicy(models_dir=str(arguments.models.absolute()), allow_hub=arguments.allow_hub)
    name = config.training.pretrained_model
    if config.dp_enabled:
        return _privately(arguments, config, policy)
    source = find_model(name, policy)
    prepared = _plainly(arguments, config, source)
    cost = measured_cost(source, prepared.config, work_of(prepared), None, paces=arguments.paces)
    warnings = [*prepared.warnings, *cost.warnings()]
    return {"read_as": prepared.read_as, COST: described(cost), "warnings": warnings}


def _plainly(
    arguments: argparse.Namespace, config: SafeSynthesizerParameters, source: ModelSource
) -> Prepared:
    from nss_train.config.support import unsupported_training
    from nss_train.data.prepared import Entry
    from nss_train.stages.preparation import prepare

    problems = list(unsupported_training(config))
    if problems:
        raise ParameterError("The job asks for what this version cannot do.", problems)
    return prepare(
        arguments.table,
        config,
        model=source.folder,
        seed=SEED,
        entry=Entry.PROCESS_DATA,
        stated_family=arguments.family,
    )


def _privately(
    arguments: argparse.Namespace, config: SafeSynthesizerParameters, policy: ModelPolicy
) -> dict[str, Any]:
    """Return the plan, which needs no model, and the cost that follows from it if the model is available."""
    from nss_train.cost.privately import private_work_of
    from nss_train.privacy.__main__ import describe, plan_of

    planned = plan_of(arguments.table, config)
    shown = describe(planned)
    try:
        source = find_model(config.training.pretrained_model, policy)
    except ParameterError as error:
        return {**shown, COST: None, "warnings": [str(error)]}
    work = private_work_of(planned, source, stated_family=arguments.family)
    cost = measured_cost(source, planned.config, work, planned.plan, paces=arguments.paces)
    return {**shown, COST: described(cost), "warnings": list(cost.warnings())}


def described(cost: Cost) -> dict[str, Any]:
    """Return the cost as plain JSON."""
    return cost.model_dump(mode="json")


def _show(shown: dict[str, Any]) -> None:
    if "promise" in shown:
        from nss_train.privacy.__main__ import in_words

        sys.stdout.write(in_words(shown) + "\n")
    if shown.get("read_as"):
        sys.stdout.write(f"read as: {shown['read_as']}\n")
    if shown[COST] is not None:
        sys.stdout.write(f"{Cost.model_validate(shown[COST])}\n")
    for warning in shown["warnings"]:
        sys.stderr.write(f"warning: {warning}\n")


if __name__ == "__main__":
    sys.exit(main())
