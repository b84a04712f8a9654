"""The train stage, which makes an adapter from a prepared model and examples."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nss_train.config import SafeSynthesizerParameters, load_resolved
from nss_train.contract import DRAIN, Report, Request, Stage, StageDrained, StageResult
from nss_train.errors import ParameterError, Problem
from nss_train.model.adapter import (
    initial_adapter,
    load_adapter,
    not_finite,
    ready_for_training,
    save_adapter,
    snapshot,
    unmoved,
)
from nss_train.model.layers.dropout import model_without_dropout
from nss_train.model.layers.rope import rope_from_json
from nss_train.model.loading import Precision, check_layers, choose_precision, load_base
from nss_train.model.memory import choose_checkpointing, estimate
from nss_train.model.metadata import metadata_from_json
from nss_train.model.scheme import choose_scheme
from nss_train.text.counted import counted
from nss_train.training.checkpoint import Checkpoints
from nss_train.training.fit import fit
from nss_train.training.fitted import Fitted
from nss_train.training.hugging_face import AdapterTrainer
from nss_train.training.options import RunOptions
from nss_train.training.ranks.group import is_first, on_device, placement
from nss_train.training.ranks.weights import check_weights_fit
from nss_train.training.steps.divergence import diverged
from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

logger = logging.getLogger(__name__)

Examples = dict[str, Dataset | None]
MakeTrainer = Callable[
    [PeftModel, PreTrainedTokenizerFast | None, SafeSynthesizerParameters, Examples, RunOptions],
    AdapterTrainer,
]
_TIMES = ("_runtime", "_per_second")


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Train ``in/model`` on the examples; rank 0 writes ``out/adapter``.

    It resumes from ``in/checkpoint`` if there is one.
    """
    if (folder / DRAIN).exists():
        raise StageDrained(0)
    prepared, config, precision = folder / "in" / "prepare_data", load_resolved(folder), choose_precision()
    examples: Examples = {side: _examples(prepared / f"{side}.arrow") for side in ("train", "validation")}
    longest = _longest(prepared, config)
    model, checkpointing = _model(folder / "in" / "model", config, request, precision, longest)
    before = snapshot(model)
    run = _run_options(folder, request, checkpointing=checkpointing, report=report)
    # It takes half a second, and only evaluations need it.
    evaluated = examples["validation"] is not None
    tokenizer = load_transformers_tokenizer(folder / "in" / "model" / "base") if evaluated else None
    trainer = _maker(folder, config, request, report)(model, tokenizer, config, examples, run)
    fitted = fit(trainer, run)
    if not is_first():
        return StageResult(stage=Stage.TRAIN)
    _check_trained(fitted, dict(fitted.weights or model.named_parameters()), before, config)
    name = config.training.pretrained_model
    save_adapter(model, folder / "out" / "adapter", base_name=name, weights=fitted.weights)
    figures = {
        "training_complete": fitted.training_complete,
        "incomplete_reason": fitted.reason,
        "steps": fitted.steps,
        "dtype": precision.name,
        "dtype_reason": precision.reason,
        **fitted.figures,
    }
    if not config.strictly_private:
        # It reveals whether memory ran out, which depends on the longest unit drawn.
        figures["gradient_checkpointing"] = checkpointing
    _write(folder / "out", figures, fitted)
    ran = {"seconds": round(fitted.seconds, 2), "ranks": fitted.ranks, **fitted.speed}
    if request.fsdp:
        ran["share_held_by_rank_0"] = fitted.share_held
    return StageResult(stage=Stage.TRAIN, figures=figures | ran)


def _maker(folder: Path, config: SafeSynthesizerParameters, request: Request, report: Report) -> MakeTrainer:
    """Return the function that makes the trainer: a plain one, or a private one with plan and record."""
    if not config.dp_enabled:
        return make_trainer
    # Imported late: most trainings need neither Opacus nor an accountant.
    from nss_train.privacy.accounting.step_budget import NullRecorder, SupervisedRecorder
    from nss_train.privacy.dpsgd.private import Private, make_private_trainer

    private = Private.read(
        folder / "in" / "prepare_data",
        record=NullRecorder() if request.charged_steps is None else SupervisedRecorder(folder, report),
        charged=request.charged_steps or 0,
    )
    return partial(make_private_trainer, private=private)


def _run_options(folder: Path, request: Request, *, checkpointing: bool, report: Report) -> RunOptions:
    kept = folder / "in" / "checkpoint"
    return RunOptions(
        output=folder / "trainer",
        seed=request.seed,
        checkpointing=checkpointing,
        report=report,
        max_seconds=request.max_train_s,
        reporters=request.reporters,
        halvings=request.halvings,
        fsdp=request.fsdp,
        kernels=request.kernels,
        checkpoints=_checkpoints(folder, request, report),
        resume_from=kept if kept.is_dir() else None,
    )


def _checkpoints(folder: Path, request: Request, report: Report) -> Checkpoints | None:
    return None if request.checkpoints is None else Checkpoints(folder, request.checkpoints, report)


def _longest(prepared: Path, config: SafeSynthesizerParameters) -> int:
    """Return the longest example's tokens, or the longest possible where results of it are published."""
    if config.strictly_private:
        document = json.loads((prepared / "metadata.json").read_text(encoding="utf-8"))
        return metadata_from_json(document).max_seq_length
    statistics = json.loads((prepared / "statistics.json").read_text(encoding="utf-8"))
    return int(statistics["tokens_per_example"]["max"])


def _examples(path: Path) -> Dataset | None:
    """Return the examples, mapped into memory, or ``None`` when there are none."""
    return Dataset.from_file(str(path)) if path.is_file() else None


def _model(
    folder: Path, config: SafeSynthesizerParameters, request: Request, precision: Precision, longest: int
) -> tuple[PeftModel, bool]:
    training = config.training
    scheme = choose_scheme(training)  # raises for one that cannot be trained on
    check_weights_fit(
        folder / "base", config, value_bytes=precision.dtype.itemsize, scheme=scheme, fsdp=request.fsdp
    )
    base = load_base(
        folder / "base",
        precision,
        attention=training.attn_implementation,
        trust_remote_code=training.pretrained_model in request.policy.trust_remote_code,
        rope=rope_from_json(json.loads((folder.parent / "prepare_data" / "metadata.json").read_text())),
        max_vram_fraction=training.max_vram_fraction,
        placement=placement(fsdp=request.fsdp, whole=config.dp_enabled),
        rows_independent=config.dp_enabled,
    )
    # A private step, and any step on CUDA, computes as many rows at a time as there is room for.
    rows = 1 if config.dp_enabled or torch.cuda.is_available() else training.batch_size
    needed = estimate(base.config, tokens=longest, batch_size=rows, bytes_per_value=precision.dtype.itemsize)
    # If memory ran out, the estimate was wrong.
    checkpointing = choose_checkpointing(needed) or request.halvings > 0
    base = ready_for_training(base, checkpointing=checkpointing)
    if config.dp_enabled:
        # The trainer would move it only after the adapter's factors are made and hooked.
        base = on_device(base)
    model = _with_adapter(base, folder / "adapter", config, request)
    if config.dp_enabled:
        check_layers(model, training.pretrained_model)
        model_without_dropout(model)
    return model, checkpointing


def _with_adapter(
    base: PreTrainedModel, prepared: Path, config: SafeSynthesizerParameters, request: Request
) -> PeftModel:
    """Return the model with its prepared adapter (LoftQ, and all models of format 2), or with a new one."""
    if prepared.is_dir():
        return load_adapter(base, prepared, trainable=True)
    return initial_adapter(base, config.training, seed=request.seed)


def _check_trained(
    fitted: Fitted,
    after: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
    config: SafeSynthesizerParameters,
) -> None:
    if not_finite({name: after[name] for name in before}):
        raise diverged("the adapter holds values that are no numbers", config.training.learning_rate)
    if fitted.training_complete and len(unmoved(after, before)) == len(before):
        raise _not_trained(config, fitted.steps)


def _not_trained(config: SafeSynthesizerParameters, steps: int) -> ParameterError:
    """Return the error with its usual cause: so few steps that all are warm-up, which begins at rate 0."""
    taken = counted(steps, "optimizer step")
    remedy = f"only {taken} taken; ask for more, or for no warm-up (training.warmup_steps: 0)"
    wanted = config.training.num_input_records_to_sample
    problem = Problem(field="training.num_input_records_to_sample", value=wanted, remedy=remedy)
    message = "Training did not change the adapter: none of its weights moved."
    return ParameterError(message, [problem])


def _write(out: Path, figures: dict[str, Any], fitted: Fitted) -> None:
    history = [_without_times(entry) for entry in fitted.log_history if "train_runtime" not in entry]
    documents = {"training_result": figures, "log_history": history}
    if fitted.privacy is not None:
        documents["privacy_result"] = fitted.privacy
    for name, document in documents.items():
        (out / f"{name}.json").write_text(json.dumps(document, indent=4), encoding="utf-8")


def _without_times(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a log entry without its times, which differ between runs of the same job."""
    return {key: value for key, value in entry.items() if not key.endswith(_TIMES)}
