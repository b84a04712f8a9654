"""The speed at which this device trains a model, from training a few of the model's layers for a moment.

The time of a pass is that of its layers plus that of everything else (embeddings, logits, the trainer).
Two short trainings, of one layer and of a few, therefore give the time of all layers. No weights are read.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from nss_train.config import SafeSynthesizerParameters
from nss_train.cost.measuring import ENOUGH_S, MOST_TOKENS, PASSES, STEPS, USUAL_TOKEN, now, tried_width
from nss_train.cost.pace import Pace
from nss_train.cost.work import MORE_LAYERS, Work
from nss_train.model.adapter import put_adapter, ready_for_training
from nss_train.model.layers.dropout import model_without_dropout
from nss_train.model.loading import choose_precision, load_base, load_skeleton
from nss_train.model.local.source import ModelSource
from nss_train.model.memory import estimate
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import choose_scheme
from nss_train.training.options import RunOptions
from nss_train.training.ranks.group import on_device
from nss_train.training.seeding import public_luck
from nss_train.training.trainer import load_transformers_tokenizer, make_trainer

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan

FEW_LAYERS = 1
SMALL = 0.02
"""Standard deviation of the invented weights, as transformers initialises most models."""


def device_name() -> str:
    """Return the name of the device that trains here."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"


def pace_of(
    source: ModelSource, config: SafeSynthesizerParameters, work: Work, plan: PrivacyPlan | None
) -> Pace:
    """Measure two models with few layers, and return the pace of the whole model."""
    layers = int(_skeleton(source, config).config.get_text_config().num_hidden_layers)
    few, more = min(FEW_LAYERS, layers), min(MORE_LAYERS, layers)
    models = (
        reduced(source, config, work, number) for number in sorted({few, more} if layers > more else {more})
    )
    found = [_pace(model, config, work, plan, source) for model in models]
    return found[-1] if layers == more else found[0].extended(found[1], (layers - few) / (more - few))


def _pace(
    model: PeftModel,
    config: SafeSynthesizerParameters,
    work: Work,
    plan: PrivacyPlan | None,
    source: ModelSource,
) -> Pace:
    if plan is None:
        return plain_pace(model, load_transformers_tokenizer(source.folder), config, work)
    from nss_train.cost.private_probe import private_pace

    return private_pace(model, config, work, plan)


def _skeleton(source: ModelSource, config: SafeSynthesizerParameters) -> PreTrainedModel:
    return load_skeleton(
        source.folder,
        attention=config.training.attn_implementation,
        trust_remote_code=source.trust_remote_code,
        rows_independent=config.dp_enabled,
    )


def reduced(source: ModelSource, config: SafeSynthesizerParameters, work: Work, layers: int) -> PeftModel:
    """Return a model with a few of the layers and an adapter, ready to train."""
    scheme, precision, model = choose_scheme(config.training), choose_precision(), _skeleton(source, config)
    needed = estimate(
        model.config,
        # As the train stage, which does not look at the lengths of a strictly private table.
        tokens=work.context_tokens if config.strictly_private else work.longest_tokens,
        batch_size=work.rows_at_once,
        bytes_per_value=precision.dtype.itemsize,
    )
    _cut(model, layers)
    with public_luck(0):
        base = _filled(model)
    base = base.to(dtype=precision.dtype)  # type: ignore[call-arg]
    base = on_device(base) if scheme is None else _quantized(base, source, config)
    checkpointing = needed.needs_checkpointing
    base = ready_for_training(base, checkpointing=checkpointing)
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    reduced = put_adapter(base, config.training).train()
    if config.dp_enabled:
        model_without_dropout(reduced)
    return reduced


def _filled(model: PreTrainedModel) -> PreTrainedModel:
    model = model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0.0, SMALL)
    return model


def _quantized(
    base: PreTrainedModel, source: ModelSource, config: SafeSynthesizerParameters
) -> PreTrainedModel:
    """Save and load the base model, because weights are quantized while they are loaded."""
    precision, scheme = choose_precision(), choose_scheme(config.training)
    with tempfile.TemporaryDirectory() as folder:
        base.save_pretrained(folder)
        return load_base(
            Path(folder),
            precision,
            attention=config.training.attn_implementation,
            trust_remote_code=source.trust_remote_code,
            quantization=None if scheme is None else quantization_config(scheme, precision.dtype),
            rows_independent=config.dp_enabled,
        )


def _cut(model: PreTrainedModel, layers: int) -> None:
    """Keep the first layers of each stack that has as many layers as the model."""
    text = model.config.get_text_config()
    total = int(text.num_hidden_layers)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ModuleList) and len(child) == total:
                setattr(module, name, child[:layers])
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]


def plain_pace(
    model: PeftModel, tokenizer: PreTrainedTokenizerFast, config: SafeSynthesizerParameters, work: Work
) -> Pace:
    """Measure the trainer itself, over rows of the usual length."""
    width = tried_width(work)
    rows = max(1, min(work.rows_at_once, MOST_TOKENS // width))
    training = config.training.model_copy(update={"batch_size": rows, "gradient_accumulation_steps": PASSES})
    ids = [[USUAL_TOKEN] * width] * (rows * PASSES * STEPS)
    ones = [[1] * width] * len(ids)
    examples = Dataset.from_dict({"input_ids": ids, "attention_mask": ones, "labels": ids})
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, public_luck(0):
        trainer = make_trainer(
            model,
            tokenizer,
            config.model_copy(update={"training": training}),
            {"train": examples, "validation": None},
            RunOptions(output=Path(folder), seed=0, checkpointing=False, report=lambda _event: None),
            callbacks=[watch],
        )
        trainer.train()
    step, one = statistics.median(watch.steps), statistics.median(watch.passes)
    return Pace(before_s=0.0, step_s=max(0.0, step - PASSES * one), token_s=one / rows / width, width=width)


class Stopwatch(TrainerCallback):
    """The times of whole steps and of the first pass of each; it ends the training when it has enough."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.passes: list[float] = []
        self._began = self._ended = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._began = now()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.global_step > 0:
            self.passes.append(now() - self._began)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        moment = now()
        if state.global_step > 1:
            self.steps.append(moment - self._ended)
        self._ended = moment
        if len(self.steps) > 1 and sum(self.steps) > ENOUGH_S:
            control.should_training_stop = True
