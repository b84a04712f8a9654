"""An NSS config: its parameter tree, its rules, and every problem at once. Needs only pydantic and YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.reader import ReaderError

from nss_train import documents
from nss_train.config.parameters import SafeSynthesizerParameters
from nss_train.config.problems import odd_values, unknown_keys, without_unknown_keys, wrong_values
from nss_train.config.sections.section import SUBMITTED
from nss_train.config.yaml_text import parse_yaml
from nss_train.errors import ParameterError, Problem

__all__ = [
    "SafeSynthesizerParameters",
    "load_config",
    "load_resolved",
    "parse_config",
    "parse_resolved",
    "read_config",
]

CONFIG_MAX_BYTES = 2**20
"""Largest size in bytes of a config file: as much as a message may carry."""


def load_config(path: Path) -> SafeSynthesizerParameters:
    """Read and check an NSS YAML or JSON file; :class:`ParameterError` lists every problem with it."""
    return parse_config(read_config(path))


def read_config(path: Path) -> Mapping[str, Any]:
    """Return the unchecked content of a YAML or JSON file; refuse all but a mapping."""
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_MAX_BYTES + 1)  # a device or a pipe has no size
        if len(text) > CONFIG_MAX_BYTES:
            raise _unreadable(path, f"has more than {CONFIG_MAX_BYTES:,} bytes; a config is a few thousand")
        document = parse_yaml(text)
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error}") from error
    except ReaderError as error:
        raise _unreadable(path, f"is no text in UTF-8: {error.reason}; save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise _unreadable(path, f"is not YAML: {error}") from error
    except RecursionError as error:
        raise _unreadable(path, f"is nested more than {documents.DEPTH} deep") from error
    if not isinstance(document, Mapping):
        raise _unreadable(path, "must hold a mapping of sections, such as `training:`")
    return document


def load_resolved(folder: Path) -> SafeSynthesizerParameters:
    """Return the config as prepare_data resolved it, from the inputs of a later stage in ``folder``."""
    file = folder / "in" / "prepare_data" / "config.json"
    return parse_resolved(json.loads(file.read_text(encoding="utf-8")))


def parse_resolved(given: Mapping[str, object]) -> SafeSynthesizerParameters:
    """Return a config that was checked when its job was submitted, perhaps by an older release."""
    return _checked(given, context={})


def parse_config(given: Mapping[str, Any]) -> SafeSynthesizerParameters:
    """Check a config; :class:`ParameterError` lists every unknown key and every wrong value."""
    return _checked(given, context=SUBMITTED)


def _checked(given: Mapping[str, object], *, context: Mapping[str, object]) -> SafeSynthesizerParameters:
    problems = list(odd_values(given, SafeSynthesizerParameters)) if context else []
    given = _without(given, {problem.field for problem in problems})
    if given.get("unknown_fields") != "ignore":
        problems += unknown_keys(given, SafeSynthesizerParameters)
    try:
        config = SafeSynthesizerParameters.model_validate(
            without_unknown_keys(given, SafeSynthesizerParameters), context=context
        )
    except ValidationError as error:
        problems.extend(wrong_values(error))
    if problems:
        raise ParameterError("The config is not valid.", problems)
    return config


def _without(given: Mapping[str, object], fields: set[str], path: str = "") -> dict[str, Any]:
    """Return the config without the named fields, so that values nested too deeply are not visited again."""
    kept = {name: value for name, value in given.items() if f"{path}{name}" not in fields}
    if path:
        return kept
    return {
        name: _without(value, fields, f"{name}.") if isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def _unreadable(path: Path, remedy: str) -> ParameterError:
    return ParameterError(
        "The config cannot be read.", [Problem(field="config", value=str(path), remedy=remedy)]
    )
