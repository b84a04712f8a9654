"""Experiment trackers that a run may report to."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

logger = logging.getLogger(__name__)

KNOWN = ("wandb", "mlflow", "tensorboard")


def choose_reporters(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the wanted trackers that are known and installed.

    Any other one causes a warning only. Weights & Biases works offline unless its own variables are set: a
    training must not wait for a server.
    """
    found = tuple(name for name in dict.fromkeys(wanted) if _is_usable(name))
    if "wandb" in found:
        os.environ.setdefault("WANDB_MODE", "offline")
    return found


def _is_usable(name: str) -> bool:
    if name not in KNOWN:
        logger.warning("not reporting to %s because it is none of %s", name, ", ".join(KNOWN))
        return False
    if find_spec(name) is None:
        logger.warning("not reporting to %s because its package is not installed", name)
        return False
    return True
