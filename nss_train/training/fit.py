"""One training from start to end, and what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Report
from nss_train.training.callbacks import ReportSteps, TimeLimit
from nss_train.training.out_of_memory import typed_out_of_memory
from nss_train.training.quality import GenerationQuality
from nss_train.training.reporters import choose_reporters
from nss_train.training.trainer import incomplete_reason, make_trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What a training did; the adapter is in the model that was given."""

    log_history: list[dict[str, Any]]
    steps: int
    training_complete: bool
    reason: str | None
    """Why it ended early; ``None`` when it is complete."""
    tokens: int
    """Of the training examples, once each."""
    seconds: float


def fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Mapping[str, Dataset | None],
    config: SafeSynthesizerParameters,
    *,
    output: Path,
    seed: int,
    checkpointing: bool,
    report: Report,
    callbacks: Sequence[TrainerCallback] = (),
    generation_eval: GenerationQuality | None = None,
    max_seconds: float | None = None,
    reporters: tuple[str, ...] = (),
    halvings: int = 0,
) -> Fitted:
    """Train the adapter of ``model`` on ``examples["train"]``; ``OutOfMemory`` is this library's own.

    ``generation_eval`` samples at each evaluation, so it needs ``examples["validation"]``.
    """
    if generation_eval is not None and examples["validation"] is None:
        logger.warning("generation_eval has no effect because there are no validation examples")
    training = examples["train"]
    if training is None:
        raise ValueError("there are no training examples")
    tokens = sum(len(ids) for ids in training["input_ids"])
    limits = [] if max_seconds is None else [TimeLimit(max_seconds)]
    quality = [] if generation_eval is None else [generation_eval]
    trainer = make_trainer(
        model,
        tokenizer,
        config,
        output=output,
        examples=examples,
        seed=seed,
        checkpointing=checkpointing,
        callbacks=[ReportSteps(report, total_tokens=tokens), *callbacks, *limits, *quality],
        reporters=choose_reporters(reporters),
        halvings=halvings,
    )
    started = time.monotonic()
    with typed_out_of_memory():
        trainer.train()
    seconds = time.monotonic() - started
    return _fitted(trainer, tokens=tokens, seconds=seconds)


def _fitted(trainer: Trainer, *, tokens: int, seconds: float) -> Fitted:
    history = trainer.state.log_history
    reason = incomplete_reason(history)
    return Fitted(
        log_history=history,
        steps=trainer.state.global_step,
        training_complete=reason is None,
        reason=reason,
        tokens=tokens,
        seconds=seconds,
    )
