"""Show, or write, the training examples that a table becomes: ``python -m nss_train.data --help``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from nss_train import command
from nss_train.config import load_config, parse_config
from nss_train.data.golden import describe, write_golden
from nss_train.data.prepared import Entry
from nss_train.model.tokenizer import load_tokenizer
from nss_train.stages.preparation import prepare
from nss_train.text.counted import counted


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.data", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--config", type=Path, help="NSS YAML or JSON; NSS's defaults without it")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--entry", choices=[entry.value for entry in Entry], default=Entry.BACKEND.value)
    parser.add_argument("--out", type=Path, help="write all examples to this .json.gz file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s")  # to stderr, from warnings on
    return command.run(lambda: show(arguments), show=_show, as_json=arguments.json)


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare the table and describe it; the model folder stands in for the config's model."""
    given = parse_config({}) if arguments.config is None else load_config(arguments.config)
    training = given.training.model_copy(update={"pretrained_model": str(arguments.model)})
    config = given.model_copy(update={"training": training})
    entry = Entry(arguments.entry)
    prepared = prepare(arguments.table, config, model=arguments.model, seed=arguments.seed, entry=entry)
    tokenizer = load_tokenizer(arguments.model)
    document = describe(prepared, tokenizer=tokenizer, seed=arguments.seed, entry=entry)
    if arguments.out is not None:
        write_golden(document, arguments.out)
    train = document["train"]
    return {
        "read_as": prepared.read_as,
        "examples": train["count"],
        "tokens": train["tokens"],
        "data_fraction": document["data_fraction"],
        "warnings": list(prepared.warnings),
        "out": None if arguments.out is None else str(arguments.out),
        "first": [example["text"] for example in train["first"]],
    }


def _show(shown: dict[str, Any]) -> None:
    read = [f"read as: {shown['read_as']}\n"] if shown["read_as"] else []
    parts = [f"--- example {number} ---\n{text}\n" for number, text in enumerate(shown["first"], 1)]
    sys.stdout.write(
        "".join([*read, *parts])
        + f"{counted(shown['examples'], 'example')}, {counted(shown['tokens'], 'token')}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
