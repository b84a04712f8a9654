"""The ``training`` section."""

from __future__ import annotations

import difflib
import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nss_train.config.bounds import ROWS, STEPS, AtMost, Path, Within, Word
from nss_train.config.sections.section import Section, is_submitted

LOSS_SCHEDULES = ("reduce_lr_on_plateau",)
"""Learning-rate schedules that follow validation losses."""
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    *LOSS_SCHEDULES,
)
"""Schedules of transformers that need no further arguments; listed here because its import takes seconds."""
UNFINISHED_SCHEDULES = ("cosine_with_min_lr", "cosine_warmup_with_min_lr", "greedy", "warmup_stable_decay")
"""Schedules of transformers that need further arguments; without one, ``greedy`` never goes below 1e-3."""


class QuantizationScheme(StrEnum):
    """The storage format of the base model's weights while the adapter trains."""

    BNB_4BIT = "bnb-4bit"
    BNB_8BIT = "bnb-8bit"
    FP8 = "fp8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"


TRAINABLE_SCHEMES = (QuantizationScheme.BNB_4BIT, QuantizationScheme.BNB_8BIT)
UNTRAINABLE = "transformers trains no adapter on such weights; use bnb-4bit or bnb-8bit"
"""The remedy for the other schemes (``is_trainable`` of their quantizers in transformers 5.12)."""


ROWWISE_ATTENTIONS = ("eager", "sdpa")
"""Attention implementations that compute each row of a batch independently."""
ATTENTIONS = (
    *ROWWISE_ATTENTIONS,
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "kernels-community/vllm-flash-attn3",
    "kernels-community/flash-attn2",
    "kernels-community/flash-attn3",
)
"""Attention implementations that a config may name; transformers would download any other as a kernel."""


def refused_schedule(name: str) -> str:
    """Return why a training cannot use a schedule, and the remedy; empty if it can."""
    if name in SCHEDULES:
        return ""
    known = f"choose among {', '.join(SCHEDULES)}"
    if name in UNFINISHED_SCHEDULES:
        return f"it needs arguments that a config has no place for; {known}"
    close = difflib.get_close_matches(name, SCHEDULES, n=1)
    return f"no such schedule; did you mean {close[0]}? Or {known}" if close else f"no such schedule; {known}"


_RECORDS = Within(0, ROWS, "twice the rows of the largest table that is usual")
_BATCH = Within(1, 2**16, "no device holds more, and no study found more to help")
_STEPS = Within(0, STEPS, "no training has more steps")
_RANK = Within(1, 4_096, "a layer of eight billion parameters is as wide: more is no low rank")
_ROPE = Within(1, 64, "methods of this kind are known to work up to 32 times the context")
_MODULES = AtMost(1_000, "a model of a hundred layers has fewer that an adapter fits")


class TrainingHyperparams(Section):
    """The settings of the adapter's training, with NSS's names, defaults and ranges."""

    num_input_records_to_sample: Literal["auto"] | Annotated[int, Field(ge=0), _RECORDS] = "auto"
    batch_size: Annotated[int, Field(ge=1), _BATCH] = 1
    gradient_accumulation_steps: Annotated[int, Field(ge=1), _BATCH] = 8
    weight_decay: Annotated[float, Field(gt=0, lt=1)] = 0.01
    warmup_steps: Annotated[float, Field(ge=0, allow_inf_nan=False), _STEPS] = 0.05
    """A share of all steps if below 1, otherwise a whole number of steps."""
    lr_scheduler: Word = "cosine"
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = "auto"
    lora_r: Annotated[int, Field(gt=0), _RANK] = 32
    lora_alpha_over_r: Annotated[float, Field(ge=0.5, le=3)] = 1.0
    lora_target_modules: Annotated[tuple[Word, ...], _MODULES] = ("q_proj", "k_proj", "v_proj", "o_proj")
    rope_scaling_factor: Literal["auto"] | Annotated[int, Field(ge=1), _ROPE] = "auto"
    validation_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    validation_steps: Annotated[int, Field(gt=0), _STEPS] = 15
    pretrained_model: Path = "HuggingFaceTB/SmolLM3-3B"
    quantize_model: bool = False
    quantization_bits: Literal[4, 8] = 8
    quantization_scheme: QuantizationScheme | None = None
    peft_implementation: Word = "QLORA"
    max_vram_fraction: Annotated[float, Field(ge=0, le=1)] = 0.80
    attn_implementation: Word = "sdpa"

    @model_validator(mode="before")
    @classmethod
    def _accept_warmup_ratio(cls, given: object) -> Any:
        """Use NSS's deprecated ``warmup_ratio`` as ``warmup_steps`` unless that is given too."""
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

    @field_validator("lr_scheduler")
    @classmethod
    def _a_schedule(cls, given: str, info: ValidationInfo) -> str:
        if is_submitted(info) and (refused := refused_schedule(given)):
            raise ValueError(refused)
        return given

    @field_validator("quantization_scheme")
    @classmethod
    def _a_trainable_scheme(
        cls, given: QuantizationScheme | None, info: ValidationInfo
    ) -> QuantizationScheme | None:
        trained = given is None or given in TRAINABLE_SCHEMES
        # Without quantize_model the scheme has no effect, as in NSS.
        if is_submitted(info) and not trained and info.data.get("quantize_model"):
            raise ValueError(UNTRAINABLE)
        return given

    @field_validator("attn_implementation")
    @classmethod
    def _a_known_attention(cls, given: str, info: ValidationInfo) -> str:
        if is_submitted(info) and given not in ATTENTIONS:
            raise ValueError(f"must be one of {', '.join(ATTENTIONS)}")
        return given

    @property
    def effective_batch_size(self) -> int:
        """Return the number of examples per optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps
