"""The complete list of fields that a strictly private job publishes.

It is pure data and a few functions, without torch or an accountant, for workers too. A field's rule is its
type; :class:`Minutes` are rounded up. A new field in an event, a figure or a metric of a private job must be
added here, and ``docs/privacy.md`` must say why it reveals nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatch
from typing import Any

from nss_train.contract import TRAIN_STEP, Stage
from nss_train.errors import BudgetExceeded, NSSTrainError, ParameterError


class Kind(StrEnum):
    """The place where a field becomes visible."""

    EVENT = "event"
    """Redis, Celery's events and Flower, ``progress.json``, and the published log."""
    FIGURES = "figures"
    """Markers and ``status``, by stage."""
    METRIC = "metric"
    """Prometheus, by histogram."""


class Minutes:
    """Seconds, rounded up to whole minutes."""


Rule = type | tuple[type, ...]
Fields = Mapping[str, Rule]

NUMBER = (int, float)
_STEP: Fields = {"step": int, "total_steps": int}
_PREPARED: Fields = {
    "columns": int,
    "units": int,
    "units_source": str,
    "data_fraction": NUMBER,
    "privacy": dict,  # the plan: a document of its own, published whole as train/privacy.json
    "promise": str,
    "cost": dict,  # by plan, config, names and types of the columns
    "seed": int,
}
_SAVED: Fields = {
    "files": int,
    "bytes": int,
    "adapter_bytes": int,
    "adapter_sha256": str,
    "adapter_tensors": int,
    "adapter_parameters": int,
    "adapter_dtypes": list,
}

LISTED: Mapping[Kind, Mapping[str, Fields]] = {
    Kind.EVENT: {
        "stage.started": {},
        "prepare.started": {},
        "prepare.done": _PREPARED,
        "model.digest": {},
        "train.started": _STEP,
        TRAIN_STEP: {
            **_STEP,
            "epsilon": NUMBER,
            "eta_s": NUMBER,
            "learning_rate": NUMBER,
            "loss": NUMBER,  # reported with noise, or not at all
        },
        "save.assembled": _SAVED,
    },
    Kind.FIGURES: {
        Stage.PREPARE_DATA: _PREPARED,
        Stage.LOAD_MODEL: {
            "digest": str,
            "train_bytes": int,
            "parameters_trainable": int,
            "cache": str,
            "cost": dict,  # of the same, measured on invented rows
        },
        Stage.TRAIN: {
            "training_complete": bool,
            "incomplete_reason": str,
            "steps": int,
            "steps_applied": int,
            "epsilon_spent": NUMBER,
            "slack": NUMBER,
            "dtype": str,
            "dtype_reason": str,
            "ranks": int,
            "seconds": Minutes,
        },
        Stage.SAVE_MODEL: _SAVED,
    },
    Kind.METRIC: {
        "stage_seconds": {"seconds": Minutes},
        "queue_wait_seconds": {"seconds": Minutes},
    },
}

MESSAGES: Mapping[str, str] = {
    "prepare.done": "{units} units",
    "train.started": "{total_steps} steps",
    TRAIN_STEP: "step {step}/{total_steps}, ε ≤ {epsilon:.3f}",
    "save.assembled": "{files} files, adapter of {adapter_bytes:,} bytes",
}
"""Messages of events, made of their published fields alone."""

FILES: Mapping[Stage, tuple[str, ...]] = {
    Stage.PREPARE_DATA: (
        "config.json",
        "choices.json",
        "schema.json",
        "metadata.json",
        "privacy.json",
        "work.json",
    ),
    Stage.LOAD_MODEL: ("*",),  # it is given no table
    Stage.TRAIN: ("adapter/*", "training_result.json", "log_history.json", "privacy_result.json"),
    Stage.SAVE_MODEL: (
        "manifest.json",
        "train/safe-synthesizer-config.json",
        "train/privacy.json",
        "train/adapter/*",
    ),
}
"""Outputs of a strictly private job that readers of its results may read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The published ones of some fields, and the names of those that are unlisted or of another type."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()


def published(kind: Kind, name: str, fields: Mapping[str, object]) -> Published | None:
    """Return the listed fields of an event, a stage's figures or a metric; ``None`` when it is not listed."""
    listed = LISTED[kind].get(name)
    if listed is None:
        return None
    kept = {key: value for key, value in fields.items() if key in listed and _fits(value, listed[key])}
    return Published(
        fields={key: _shown(value, listed[key]) for key, value in kept.items()},
        unlisted=tuple(sorted(fields.keys() - kept.keys())),
    )


def in_words(action: str, fields: Mapping[str, object]) -> str:
    """Return a published event in words."""
    try:
        return MESSAGES.get(action, "").format(**fields) or action
    except KeyError:
        return action


def is_published_file(stage: Stage, path: str) -> bool:
    """Tell whether a file that a stage of a strictly private job wrote may be read with its results."""
    return any(fnmatch(path, pattern) for pattern in FILES[stage])


def whole_minutes(seconds: float) -> int:
    """Round seconds up to whole minutes, one minute at least; return seconds."""
    return 60 * max(1, math.ceil(seconds / 60))


def minute_before(moment: datetime) -> datetime:
    """Return the beginning of the minute that a moment lies in."""
    return moment.replace(second=0, microsecond=0)


def minute_after(moment: datetime) -> datetime:
    """Return the next whole minute, at least a minute after :func:`minute_before` of an earlier moment."""
    return minute_before(moment) + timedelta(minutes=1)


def is_public_error(error: NSSTrainError, stage: Stage | None) -> bool:
    """Tell whether an error states public facts only.

    It is marked as public; or it reports figures of a plan and a ledger; or it refuses a config or a base
    model after prepare_data, where only released values, invented units and public documents can cause that.
    """
    if error.public or isinstance(error, BudgetExceeded):
        return True
    return isinstance(error, ParameterError) and stage not in {None, Stage.PREPARE_DATA}


INSIDE = "failed inside; the operator's log has the reason"
"""Whole message of an error that may reveal something about the table."""


def published_error(error: NSSTrainError, stage: Stage | None, *, reason: str) -> NSSTrainError:
    """Return the error as it may be shown: itself, its class's own sentence, or :data:`INSIDE` with an id.

    ``reason`` is the id under which the operator finds the original message.
    """
    if is_public_error(error, stage):
        return error
    kind = type(error)
    if kind.told is None:
        return NSSTrainError(f"{INSIDE} ({reason}).")
    return kind(f"{kind.told} ({reason}).")


def _fits(value: object, rule: Rule) -> bool:
    types = NUMBER if rule is Minutes else rule
    if isinstance(value, bool):
        return rule is bool
    return value is None or isinstance(value, types)


def _shown(value: Any, rule: Rule) -> Any:
    return whole_minutes(value) if rule is Minutes and value is not None else value
