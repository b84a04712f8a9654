"""Quantization schemes, and which of them can be trained on. Imports no torch."""

from __future__ import annotations

import logging
from enum import StrEnum
from importlib.util import find_spec

from nss_train.config.sections.training import UNTRAINABLE, TrainingHyperparams
from nss_train.errors import ParameterError, Problem

logger = logging.getLogger(__name__)

LOFTQ = "loftq"


class Scheme(StrEnum):
    """Quantization schemes by NSS's names."""

    BNB_4BIT = "bnb-4bit"
    BNB_8BIT = "bnb-8bit"
    FP8 = "fp8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"

    @property
    def is_bitsandbytes(self) -> bool:
        """Tell whether it is a scheme of bitsandbytes, whose weights any device can make and train on."""
        return self in (Scheme.BNB_4BIT, Scheme.BNB_8BIT)


def choose_scheme(training: TrainingHyperparams) -> Scheme | None:
    """Return the scheme that a config asks for; ``None`` when it asks for none.

    Raises :class:`ParameterError` for one that cannot be trained on, or whose package is missing.
    """
    if not training.quantize_model:
        return None
    given = training.quantization_scheme
    bits = training.__dict__["quantization_bits"]  # reading a deprecated field warns
    scheme = Scheme(given) if given is not None else Scheme.BNB_4BIT if bits == 4 else Scheme.BNB_8BIT
    logger.info(
        "quantization=%s because %s", scheme, "it is set" if given else f"quantization_bits is {bits}"
    )
    lacking = _lacking(scheme)
    if lacking:
        problem = Problem(field="training.quantization_scheme", value=scheme.value, remedy=lacking)
        raise ParameterError("The base model cannot be quantized in that way.", [problem])
    return scheme


def uses_loftq(training: TrainingHyperparams) -> bool:
    return training.quantize_model and training.peft_implementation.lower() == LOFTQ


def _lacking(scheme: Scheme) -> str:
    """Return why a scheme cannot be trained on and what to do about it; empty when it can."""
    # Such a config is refused at submission, but older releases accepted it.
    if not scheme.is_bitsandbytes:
        return UNTRAINABLE
    return "" if find_spec("bitsandbytes") else "install the package bitsandbytes"
