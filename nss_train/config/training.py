"""The ``training`` section."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nss_train.config.section import Section


class QuantizationScheme(StrEnum):
    """How the base model's weights are stored while the adapter trains."""

    BNB_4BIT = "bnb-4bit"
    BNB_8BIT = "bnb-8bit"
    FP8 = "fp8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"


class TrainingHyperparams(Section):
    """How the adapter is trained. NSS's names, defaults and ranges."""

    num_input_records_to_sample: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 1
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 8
    weight_decay: Annotated[float, Field(gt=0, lt=1)] = 0.01
    warmup_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    """Below 1 a share of all steps, from 1 on a whole number of steps."""
    lr_scheduler: str = "cosine"
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = "auto"
    lora_r: Annotated[int, Field(gt=0)] = 32
    lora_alpha_over_r: Annotated[float, Field(ge=0.5, le=3)] = 1.0
    lora_target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    rope_scaling_factor: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    validation_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    validation_steps: Annotated[int, Field(gt=0)] = 15
    pretrained_model: str = "HuggingFaceTB/SmolLM3-3B"
    quantize_model: bool = False
    quantization_bits: Literal[4, 8] = 8
    quantization_scheme: QuantizationScheme | None = None
    peft_implementation: str = "QLORA"
    max_vram_fraction: Annotated[float, Field(ge=0, le=1)] = 0.80
    attn_implementation: str = "sdpa"

    @model_validator(mode="before")
    @classmethod
    def _accept_warmup_ratio(cls, given: Any) -> Any:
        """NSS's deprecated ``warmup_ratio`` stands in for ``warmup_steps`` unless that is given too."""
        if isinstance(given, dict) and "warmup_ratio" in given:
            rest = {name: value for name, value in given.items() if name != "warmup_ratio"}
            if given["warmup_ratio"] is not None:
                rest.setdefault("warmup_steps", given["warmup_ratio"])
            return rest
        return given

    @field_validator("warmup_steps")
    @classmethod
    def _whole_warmup_steps(cls, given: float) -> float:
        if given >= 1 and given != math.floor(given):
            raise ValueError("must be a whole number when it is 1 or more")
        return given

    @property
    def effective_batch_size(self) -> int:
        """Examples per optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps
