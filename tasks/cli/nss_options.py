"""NSS's own options for a config's fields: ``--training__lora_r 16`` means ``--set training.lora_r=16``.

NSS has one option for each field: its path joined with two underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import typer
from typer.core import TyperCommand

_FIELD = re.compile(r"--([a-z0-9_]+__[a-z0-9_]+)(?:=(.*))?", re.DOTALL)
_WITHOUT = {"--no-privacy": "privacy=null", "--no-replace-pii": "replace_pii=null"}


class ConfigCommand(TyperCommand):
    """A command with a config, whose fields can be set by NSS's options, too."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(ctx, list(translated(args)))


def translated(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the arguments with ``--set`` for each of NSS's options; those after ``--`` stay as they are."""
    rest = iter(arguments)
    for argument in rest:
        found = _FIELD.fullmatch(argument)
        if argument == "--":
            yield argument
            yield from rest
        elif argument in _WITHOUT:
            yield from ("--set", _WITHOUT[argument])
        elif found is not None:
            field, given = found[1].replace("__", "."), found[2]
            value = next(rest, None) if given is None else given
            # Without a value the option is left for the parser to refuse.
            yield from [argument] if value is None else ["--set", f"{field}={value}"]
        else:
            yield argument
