"""Overrides of single config fields, given separately from the file: ``training.lora_r=16``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from nss_train import documents
from nss_train.config.yaml_text import parse_yaml
from nss_train.errors import ParameterError, Problem

_FORM = "write FIELD=VALUE, such as training.lora_r=16"


def with_overrides(given: Mapping[str, object], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the config with these fields replaced; their values are checked later, with all the others.

    Each value is read as YAML. Raises :class:`ParameterError` with every override that cannot be read.
    """
    found, problems = dict[str, Any](), list[Problem]()
    for override in overrides:
        field, _, text = override.partition("=")
        try:
            found[field] = _value(override, field, text)  # the last of several counts
        except ParameterError as error:
            problems += error.problems
    problems += _clashes(found)
    if problems:
        raise ParameterError("The config's fields cannot be set like this.", problems)
    merged = dict(given)
    for field, value in found.items():
        merged = _replaced(merged, field.split("."), value)
    return merged


def _value(override: str, field: str, text: str) -> Any:
    """Return the value of an override; raise :class:`ParameterError` if it cannot be read."""
    if "=" not in override or not all(field.split(".")) or field.count(".") > documents.DEPTH:
        raise _unreadable("set", override, _FORM)
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        why = str(error).splitlines()[0]
        raise _unreadable(field, text, f"is not YAML: {why}; quote it") from error
    except RecursionError as error:
        raise _unreadable(field, text, f"is nested more than {documents.DEPTH} deep") from error


def _unreadable(field: str, value: str, remedy: str) -> ParameterError:
    problem = Problem(field=field, value=value, remedy=remedy)
    return ParameterError("The config's fields cannot be set like this.", [problem])


def _clashes(found: Mapping[str, object]) -> Iterator[Problem]:
    for field in found:
        parents = (field[:end] for end, char in enumerate(field) if char == ".")
        for parent in parents:
            if parent in found:
                remedy = f"{parent} is set as a whole, too; set either"
                yield Problem(field=field, value=found[field], remedy=remedy)


def _replaced(given: Mapping[str, object], path: list[str], value: object) -> dict[str, Any]:
    name, *below = path
    if below:
        section = given.get(name)
        value = _replaced(section if isinstance(section, Mapping) else {}, below, value)
    return {**given, name: value}
