"""Quantization schemes, and whether this machine can. Light: torch is imported only to ask for a device."""

from __future__ import annotations

import logging
from enum import StrEnum
from importlib.util import find_spec

from nss_train.config.training import TrainingHyperparams
from nss_train.errors import ParameterError, Problem

logger = logging.getLogger(__name__)

LOFTQ = "loftq"
_FP8_CAPABILITY = (8, 9)
_FP4_CAPABILITY = (10, 0)


class Scheme(StrEnum):
    """NSS's names."""

    BNB_4BIT = "bnb-4bit"
    BNB_8BIT = "bnb-8bit"
    FP8 = "fp8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"

    @property
    def is_bitsandbytes(self) -> bool:
        """Whether the quantized weights can be stored, and made on any device."""
        return self in (Scheme.BNB_4BIT, Scheme.BNB_8BIT)


def choose_scheme(training: TrainingHyperparams) -> Scheme | None:
    """The scheme that a config asks for; ``None`` when it asks for none.

    Raises :class:`ParameterError` when the machine or a package lacks what the scheme needs.
    """
    if not training.quantize_model:
        return None
    given = training.quantization_scheme
    bits = training.__dict__["quantization_bits"]  # a deprecated field warns when it is read
    scheme = Scheme(given) if given is not None else Scheme.BNB_4BIT if bits == 4 else Scheme.BNB_8BIT
    logger.info(
        "quantization=%s because %s", scheme, "it is set" if given else f"quantization_bits is {bits}"
    )
    lacking = _lacking(scheme)
    if lacking:
        raise ParameterError("This machine cannot quantize in that way.", [_problem(scheme, lacking)])
    if uses_loftq(training) and not scheme.is_bitsandbytes:
        message = "peft_implementation='loftq' requires a bitsandbytes scheme"
        raise ParameterError(
            message, [_problem(scheme, "use bnb-4bit or bnb-8bit, or another peft_implementation")]
        )
    return scheme


def uses_loftq(training: TrainingHyperparams) -> bool:
    return training.quantize_model and training.peft_implementation.lower() == LOFTQ


def _lacking(scheme: Scheme) -> str:
    """What the machine lacks for a scheme; empty when nothing."""
    if scheme.is_bitsandbytes:
        return "" if find_spec("bitsandbytes") else "install the package bitsandbytes"
    import torch

    if not torch.cuda.is_available():
        return "it needs a CUDA device and there is none; use bnb-4bit or bnb-8bit"
    needed = _FP8_CAPABILITY if scheme is Scheme.FP8 else _FP4_CAPABILITY
    found = torch.cuda.get_device_capability()
    if found < needed and scheme is not Scheme.MXFP4:
        return f"it needs compute capability {needed}, the device has {found}; use bnb-4bit or bnb-8bit"
    package = {Scheme.NVFP4: "torchao", Scheme.MXFP4: "kernels"}.get(scheme)
    if package is not None and find_spec(package) is None:
        return f"install the package {package}, or use bnb-4bit or bnb-8bit"
    return ""


def _problem(scheme: Scheme, remedy: str) -> Problem:
    return Problem(field="training.quantization_scheme", value=scheme.value, remedy=remedy)
