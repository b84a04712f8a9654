"""The refusal of a command that was mistyped: one line, whatever typer would print."""

from __future__ import annotations

import re

import typer

from nss_train.errors import ParameterError

_POSSIBLE = re.compile(r" \(Possible options?: (.+)\)$")


def is_call_for_help(error: typer.TyperException) -> bool:
    """Tell whether nothing was typed after a group of commands; typer has printed its help by then."""
    return not error.format_message().strip()


def refusal(error: typer.TyperException) -> ParameterError:
    """Return what is wrong with the command line, the nearest name that exists, and where the help is."""
    # The help of a choice goes over several lines.
    said = " ".join(error.format_message().split())
    said = said.replace("Value error, ", "")  # pydantic's prefix
    said = _POSSIBLE.sub(r"; did you mean \1?", said)
    return ParameterError(f"{said}{'' if said.endswith(('.', '?')) else '.'}{_help_of(error)}")


def _help_of(error: typer.TyperException) -> str:
    # An error about a parameter knows where it occurred; others, such as a file's, do not.
    context = getattr(error, "ctx", None)
    return "" if context is None else f" See {context.command_path} --help."
