"""RoPE scaling, as stored in the metadata."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger(__name__)

MAX_FACTOR = 6.0
DEFAULT_THETA = 10_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """The RoPE scaling that stretches a model beyond its own context."""

    rope_type: str
    factor: float
    theta: float
    rope_parameters: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def rope_scaling(factor: float | None, model_config: Mapping[str, Any]) -> RopeScaling | None:
    """Return the scaling for a factor, with type and theta from the model's own config; ``None`` for 1."""
    if factor is None or factor == 1:
        return None
    if factor > MAX_FACTOR:
        logger.warning("rope_scaling_factor=%s because NSS allows no more than %s", factor, MAX_FACTOR)
    legacy, own = model_config.get("rope_scaling") or {}, model_config.get("rope_parameters") or {}
    parameters = {**legacy, **own}
    stated = (parameters.get("rope_theta"), parameters.get("theta"), model_config.get("rope_theta"))
    theta = next((one for one in stated if one is not None), DEFAULT_THETA)
    return RopeScaling(
        rope_type=parameters.get("rope_type", parameters.get("type", "default")),
        factor=min(float(factor), MAX_FACTOR),
        theta=float(theta),
        rope_parameters=parameters,
    )


def stretch(model_config: Any, rope: RopeScaling) -> None:
    """Apply a scaling to a transformers config: rotary frequencies and context.

    NSS writes the factor with the type ``default``, for which transformers trains unscaled while NSS
    generates with ``linear``; here both are ``linear``.
    """
    kind = "linear" if rope.rope_type == "default" else rope.rope_type
    own = dict(getattr(model_config, "rope_parameters", None) or {})
    own |= {"rope_type": kind, "factor": rope.factor, "rope_theta": rope.theta}
    model_config.rope_parameters = own
    model_config.max_position_embeddings = int(model_config.max_position_embeddings * rope.factor)


def rope_from_json(document: Mapping[str, Any]) -> RopeScaling | None:
    """Return the scaling in a ``metadata_v2.json``; ``None`` when there is none."""
    stored = document.get("rope_scaling")
    return None if stored is None else RopeScaling(**stored)
