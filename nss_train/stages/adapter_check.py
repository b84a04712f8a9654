"""The check that a job's adapter fits its base model; an adapter that fits is remembered with the model."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version

from nss_train import __version__
from nss_train.config import SafeSynthesizerParameters
from nss_train.model.local.known import KnownModel
from nss_train.model.local.source import ModelSource

logger = logging.getLogger(__name__)

_BUILDERS = ("torch", "transformers", "peft")
"""Packages that decide, beside this one, which layers a config becomes, and what fits them."""


def adapter_parameters(source: ModelSource, config: SafeSynthesizerParameters, known: KnownModel) -> int:
    """Return the adapter's number of trainable parameters.

    Raises :class:`ParameterError` for an adapter that cannot be trained, and for a model that its files do
    not hold. Loads no weights, and nothing at all when such an adapter is known to fit; a model that runs its
    own code is asked each time.
    """
    shape = adapter_shape(config)
    if shape in known.adapters and not source.trust_remote_code:
        return known.adapters[shape]
    return _count(source, config)


def adapter_shape(config: SafeSynthesizerParameters) -> str:
    """Return a digest of all that decides, beside the model, whether an adapter fits and how large it is."""
    parts = {
        "training": config.training.model_dump(
            include={"lora_r", "lora_alpha_over_r", "lora_target_modules", "attn_implementation"}, mode="json"
        ),
        "rows_independent": config.dp_enabled,
        "versions": [__version__, *(version(name) for name in _BUILDERS)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _count(source: ModelSource, config: SafeSynthesizerParameters) -> int:
    from nss_train.model.adapter import put_adapter
    from nss_train.model.loading import check_layers, load_skeleton
    from nss_train.model.stored import Stored, check_resolved, check_stored

    stored = None if source.trust_remote_code else Stored.of(source.folder)
    if stored is not None:
        check_resolved(stored)
    base = load_skeleton(
        source.folder,
        attention=config.training.attn_implementation,
        trust_remote_code=source.trust_remote_code,
        rows_independent=config.dp_enabled,
    )
    if stored is not None:
        check_stored(stored, base)
    model = put_adapter(base, config.training)
    if config.dp_enabled:
        check_layers(model, config.training.pretrained_model)
    trainable, total = model.get_nb_trainable_parameters()
    logger.info("%.2f of %.2f million parameters are trainable", trainable / 1e6, total / 1e6)
    return trainable
