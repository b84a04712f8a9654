"""Experiment trackers that a run may report to."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

from nss_train.errors import ParameterError, Problem

logger = logging.getLogger(__name__)

KNOWN = ("wandb", "mlflow", "tensorboard")


def choose_reporters(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are installed; :class:`ParameterError` for one that nobody knows.

    A tracker that is missing costs a warning, not the job. Weights & Biases works offline unless
    its own variables say otherwise: a training must not wait for a server.
    """
    unknown = [name for name in wanted if name not in KNOWN]
    if unknown:
        problem = Problem(field="report_to", value=unknown, remedy=f"choose among {', '.join(KNOWN)}")
        raise ParameterError("Unknown experiment tracker.", [problem])
    found = tuple(name for name in wanted if find_spec(name) is not None)
    for name in set(wanted) - set(found):
        logger.warning("not reporting to %s because its package is not installed", name)
    if "wandb" in found:
        os.environ.setdefault("WANDB_MODE", "offline")
    return found
