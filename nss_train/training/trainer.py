"""The trainer for a model, its examples and a config: what stage and facade have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.training.arguments import training_arguments
from nss_train.training.callbacks import INCOMPLETE, EvaluateAtEnd
from nss_train.training.metrics import BatchedMetrics, preprocess_logits_for_metrics


def make_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    config: SafeSynthesizerParameters,
    *,
    output: Path,
    examples: Mapping[str, Dataset | None],
    seed: int,
    checkpointing: bool,
    callbacks: Sequence[TrainerCallback] = (),
    reporters: tuple[str, ...] = (),
    halvings: int = 0,
) -> Trainer:
    """A trainer over ``examples["train"]``, evaluated on ``examples["validation"]`` when there are any."""
    evaluate = examples["validation"] is not None
    trainer = Trainer(
        model=model,
        args=training_arguments(
            config.training,
            output=output,
            seed=seed,
            checkpointing=checkpointing,
            evaluate=evaluate,
            reporters=reporters,
            halvings=halvings,
        ),
        train_dataset=examples["train"],
        eval_dataset=examples["validation"],
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=BatchedMetrics() if evaluate else None,
        preprocess_logits_for_metrics=preprocess_logits_for_metrics if evaluate else None,
        callbacks=[*callbacks, *([EvaluateAtEnd()] if evaluate else [])],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a model folder; padding is the end token where there is none, as in NSS."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
    if not tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def incomplete_reason(log_history: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a training ended early; ``None`` when it did all its steps."""
    return next((str(entry[INCOMPLETE]) for entry in log_history if INCOMPLETE in entry), None)
