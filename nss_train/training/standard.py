"""Training without differential privacy."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast, Trainer
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.contract import Report, Request, Stage, StageResult
from nss_train.errors import NSSTrainError, ParameterError, Problem
from nss_train.model.adapter import load_adapter, not_finite, save_adapter, snapshot, unmoved
from nss_train.model.loading import Precision, choose_precision, load_base
from nss_train.model.memory import choose_checkpointing, estimate
from nss_train.training.arguments import training_arguments
from nss_train.training.callbacks import ReportSteps
from nss_train.training.metrics import compute_metrics, preprocess_logits_for_metrics
from nss_train.training.out_of_memory import typed_out_of_memory

logger = logging.getLogger(__name__)


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """The train stage: ``in/model`` and the examples become ``out/adapter``."""
    prepared = folder / "in" / "prepare_data"
    config = parse_config(json.loads((prepared / "config.json").read_text(encoding="utf-8")))
    examples: dict[str, Any] = {
        side: _examples(prepared / f"{side}.arrow") for side in ("train", "validation")
    }
    precision = choose_precision()
    longest = json.loads((prepared / "statistics.json").read_text())["tokens_per_example"]["max"]
    model, checkpointing = _model(folder / "in" / "model", config, request, precision, int(longest))
    tokens = sum(len(ids) for ids in examples["train"]["input_ids"])
    trainer = _trainer(model, config, folder, examples, seed=request.seed, checkpointing=checkpointing)
    trainer.add_callback(ReportSteps(report, total_tokens=tokens))
    before, started = snapshot(model), time.monotonic()
    with typed_out_of_memory():
        trainer.train()
    seconds = time.monotonic() - started
    _check_trained(model, before, config)
    save_adapter(model, folder / "out" / "adapter", base_name=config.training.pretrained_model)
    figures = {
        "training_complete": True,
        "steps": trainer.state.global_step,
        "examples": len(examples["train"]),
        "tokens": tokens,
        "dtype": precision.name,
        "dtype_reason": precision.reason,
        "gradient_checkpointing": checkpointing,
        "final_loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1],
    }
    _write(folder / "out", figures, trainer.state.log_history)
    timing = {"seconds": round(seconds, 2), "tokens_per_s": round(tokens / seconds, 1)}
    return StageResult(stage=Stage.TRAIN, figures=figures | timing)


def _examples(path: Path) -> Dataset | None:
    """Examples mapped into memory, or ``None`` when there are none."""
    return Dataset.from_file(str(path)) if path.is_file() else None


def _model(
    folder: Path, config: SafeSynthesizerParameters, request: Request, precision: Precision, longest: int
) -> tuple[PeftModel, bool]:
    name = config.training.pretrained_model
    base = load_base(
        folder / "base",
        precision,
        attention=config.training.attn_implementation,
        trust_remote_code=name in request.policy.trust_remote_code,
    )
    base.config.use_cache = False
    needed = estimate(
        base.config,
        tokens=longest,
        batch_size=config.training.batch_size,
        bytes_per_value=precision.dtype.itemsize,
    )
    checkpointing = choose_checkpointing(needed)
    if checkpointing:
        # Without it no gradient flows from frozen embeddings into the recomputed layers.
        base.enable_input_require_grads()
    return load_adapter(base, folder / "adapter", trainable=True), checkpointing


def _trainer(
    model: PeftModel,
    config: SafeSynthesizerParameters,
    folder: Path,
    examples: dict[str, Any],
    *,
    seed: int,
    checkpointing: bool,
) -> Trainer:
    evaluate = examples["validation"] is not None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder / "in" / "model" / "base"))
    if not tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model=model,
        args=training_arguments(
            config.training,
            output=folder / "trainer",
            seed=seed,
            checkpointing=checkpointing,
            evaluate=evaluate,
        ),
        train_dataset=examples["train"],
        eval_dataset=examples["validation"],
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics if evaluate else None,
        preprocess_logits_for_metrics=preprocess_logits_for_metrics if evaluate else None,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _check_trained(model: PeftModel, before: dict[str, Any], config: SafeSynthesizerParameters) -> None:
    if not_finite(model):
        rate = config.training.learning_rate
        problem = Problem(field="training.learning_rate", value=rate, remedy="use a smaller one")
        raise ParameterError("Training diverged: the adapter holds values that are no numbers.", [problem])
    if len(unmoved(model, before)) == len(before):
        raise NSSTrainError("Training did not change the adapter: none of its weights moved.")


def _write(out: Path, figures: dict[str, Any], log_history: list[dict[str, Any]]) -> None:
    (out / "training_result.json").write_text(json.dumps(figures, indent=4), encoding="utf-8")
    (out / "log_history.json").write_text(json.dumps(log_history, indent=4), encoding="utf-8")
