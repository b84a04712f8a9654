"""Removal of all kinds of dropout, which a private training must not have."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
SHOWN = 8
"""Most places that are named in the log."""
_NAMES = re.compile(r"drop|jitter|stochastic_depth")
"""Names of fields and attributes with a rate: dropout and the like, skipped layers, a router's noise."""


def config_without_dropout(config: PretrainedConfig) -> list[str]:
    """Set every rate in a model's config to 0, nested ones too; return the names of the changed ones."""
    return list(_silence(vars(config), ""))


def model_without_dropout(model: nn.Module) -> list[str]:
    """Set every rate in a model's layers and configs to 0, an adapter's too; return the changed names.

    They are logged. This covers rates that a layer passes to a function, as attention does. Any other
    randomness shows in the coupling check.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, DROPOUTS) and module.p:
            module.p = 0.0
            found.append(name)
        found += _silence(vars(module), f"{name}.")
    for name, adapter in getattr(model, "peft_config", {}).items():
        found += _silence(vars(adapter), f"{name}.")
    if found:
        logger.warning(
            "dropout is off under privacy: its masks would tie units together (%s)",
            ", ".join(found[:SHOWN]),
            extra={"action": "privacy.dropout_off", "field": "training.lora_dropout", "found": len(found)},
        )
    return found


def _silence(fields: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in list(fields.items()):
        if isinstance(value, PretrainedConfig):
            yield from _silence(vars(value), f"{prefix}{name}.")
        elif isinstance(value, dict) and not name.startswith("_"):
            yield from _silence(value, f"{prefix}{name}.")
        elif _NAMES.search(str(name)) and type(value) in (int, float) and value:
            fields[name] = type(value)(0)
            yield f"{prefix}{name}"
