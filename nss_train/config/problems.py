"""All problems of a config at once, each with its field, its value and a remedy."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from nss_train import documents
from nss_train.errors import MOST_PROBLEMS, ParameterError, Problem, unlisted

DEPRECATED = {"training.warmup_ratio"}
"""Keys that are accepted although they are no longer fields."""

SECTION_NAMES = 200
"""Most names of a section that are looked at one by one. The largest section has 40."""
_HINTS = 10
"""Number of unknown names that get a hint (0.2 ms each); with more, the file is probably the wrong one."""
_HINT_CHARS = 100
"""Characters of a name that are compared; no known name is longer."""
_REMEDIES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "finite_number": "must be a finite number",
    "tuple_type": "write a list, such as [a, b]",
    "list_type": "write a list, such as [a, b]",
    "dict_type": "is a section, such as {{name: value}}",
    "model_type": "is a section, such as {{name: value}}",
}


def unknown_keys(given: Mapping[str, object], model: type[BaseModel]) -> Iterator[Problem]:
    """Yield a problem for each key that no section knows, with the closest known key."""
    found = _unknown(given, model)
    for number, (path, name, value, section) in enumerate(islice(found, MOST_PROBLEMS)):
        hint = _hint(path, name, section) if number < _HINTS else _known(section)
        remedy = f"unknown configuration field; {hint}"
        yield Problem(field=f"{path}{name}", value=value, remedy=remedy)
    if rest := sum(1 for _ in found):
        yield unlisted(rest)


def _unknown(
    given: Mapping[str, object], model: type[BaseModel], path: str = ""
) -> Iterator[tuple[str, str, Any, type[BaseModel]]]:
    fields = model.model_fields
    for key, value in given.items():
        name = str(key)
        if f"{path}{name}" in DEPRECATED:
            continue
        field = fields.get(name)
        if field is None:
            yield path, name, value, model
        elif isinstance(value, Mapping):
            for below, inner, section in _sections(field.annotation, value, f"{path}{name}."):
                yield from _unknown(inner, section, below)


def _sections(
    annotation: object, value: Mapping[str, object], path: str
) -> Iterator[tuple[str, Mapping[str, object], type[BaseModel]]]:
    """Yield the section in a field, or those in its mapping, each with its path and its model."""
    if (section := _section(annotation)) is not None:
        yield path, value, section
    elif typing.get_origin(annotation) is dict:
        section = _section(typing.get_args(annotation)[1])
        for name, inner in value.items():
            if section is not None and isinstance(inner, Mapping):
                yield f"{path}{name}.", inner, section


def _hint(path: str, name: str, section: type[BaseModel]) -> str:
    close = difflib.get_close_matches(name[:_HINT_CHARS], section.model_fields, n=1)
    return f"did you mean {path}{close[0]}?" if close else _known(section)


def _known(section: type[BaseModel]) -> str:
    return f"known are {', '.join(section.model_fields)}"


def without_unknown_keys(given: Mapping[str, object], model: type[BaseModel]) -> dict[str, Any]:
    """Return the mapping with only the keys that the sections know."""
    unknown = {f"{path}{name}" for path, name, _, _ in _unknown(given, model)}

    def known(mapping: Mapping[str, object], path: str) -> dict[str, Any]:
        return {
            name: known(value, f"{path}{name}.") if isinstance(value, Mapping) else value
            for name, value in mapping.items()
            if f"{path}{name}" not in unknown
        }

    return known(given, "")


def odd_values(given: Mapping[str, object], model: type[BaseModel]) -> Iterator[Problem]:
    """Yield a problem for each field whose value is too deep, too large or cannot be stored.

    A section with too many names is one problem: its content is not looked at.
    """
    for name, value in given.items():
        field = model.model_fields.get(name)
        section = None if field is None else _section(field.annotation)
        if section is not None and isinstance(value, Mapping) and len(value) > SECTION_NAMES:
            yield Problem(field=name, value=f"{len(value):,} names", remedy=_known(section))
        elif next(documents.faults({name: value}), None) is None:
            continue
        elif isinstance(value, Mapping) and len(value) <= documents.NAMES:
            yield from _odd_fields(value, f"{name}.")
        else:
            yield from _odd_fields({name: value}, "")


def _odd_fields(given: Mapping[str, object], path: str) -> Iterator[Problem]:
    for name, value in given.items():
        if (why := next(documents.faults({name: value}), None)) is not None:
            yield Problem(field=f"{path}{name}", value=value, remedy=why)


def wrong_values(error: ValidationError) -> list[Problem]:
    """Return a problem for each field that pydantic refuses; merge the branches of a union."""
    remedies: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    listed: list[Problem] = []
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ParameterError):  # a rule across sections, which names its fields itself
            listed += cause.problems
            continue
        field = _field_of(detail["loc"])
        remedies.setdefault(field, []).append(_remedy(detail["type"], detail["msg"], detail.get("ctx", {})))
        values[field] = detail["input"] if detail["loc"] else None
    return listed + [
        Problem(field=field, value=_shown(values[field]), remedy=", or ".join(dict.fromkeys(said)))
        for field, said in remedies.items()
    ]


def _field_of(location: tuple[int | str, ...]) -> str:
    """Return the dotted name, without the names of a union's branches that pydantic appends."""
    from nss_train.config.parameters import SafeSynthesizerParameters

    found: object = SafeSynthesizerParameters
    names: list[str] = []
    for part in map(str, location):
        found = _below(found, part)
        if found is None:
            break
        names.append(part)
    return ".".join(names) or "config"


def _below(annotation: object, name: str) -> object | None:
    """Return what a section or a mapping holds under a name; ``None`` for the name of a union's branch."""
    if typing.get_origin(annotation) is dict:
        return typing.get_args(annotation)[1]  # type: ignore[no-any-return]
    section = _section(annotation)
    field = None if section is None else section.model_fields.get(name)
    return None if field is None else field.annotation


def _remedy(kind: str, message: str, context: Mapping[str, object]) -> str:
    template = _REMEDIES.get(kind)
    return template.format(**context) if template else message.removeprefix("Value error, ")


def _section(annotation: object) -> type[BaseModel] | None:
    """Return the section that a field holds; ``None`` for a mapping, whose keys are up to the user."""
    if typing.get_origin(annotation) is dict:
        return None
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _shown(value: object) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:200]
