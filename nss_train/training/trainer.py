"""The trainer for a model, its examples and a config, shared by stage and facade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import (
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.training.arguments import training_arguments
from nss_train.training.callbacks import INCOMPLETE, EvaluateAtEnd
from nss_train.training.metrics import BatchedMetrics, preprocess_logits_for_metrics
from nss_train.training.sampling import Shuffled, padded
from nss_train.training.sharing import share_between_cpus


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
    fsdp: bool = False,
) -> Trainer:
    """Return a trainer on ``examples["train"]``, evaluated on ``examples["validation"]`` if there are any."""
    evaluate = examples["validation"] is not None
    arguments = training_arguments(
        config.training,
        output=output,
        seed=seed,
        checkpointing=checkpointing,
        evaluate=evaluate,
        reporters=reporters,
        halvings=halvings,
        fsdp=fsdp,
    )
    trainer = SharedBatchTrainer(
        model=model,
        args=arguments,
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


class AdapterTrainer(Trainer):
    """Hugging Face's trainer with checkpoints that hold only the adapter."""

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator as the base class does, with FSDP for ranks on CPUs too."""
        super().create_accelerator_and_postprocess()
        sharing = self.args.fsdp_plugin_args
        if sharing is not None and not torch.cuda.is_available():
            share_between_cpus(sharing)
            self.is_fsdp_enabled = True

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the adapter only: resuming needs neither the tokenizer nor pickled arguments."""
        folder = self.args.output_dir if output_dir is None else output_dir
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)


class SharedBatchTrainer(AdapterTrainer):
    """A trainer whose runs do not depend on the number of ranks that share a batch."""

    def __init__(self, *, train_dataset: Dataset, args: TrainingArguments, **options: Any) -> None:
        self._real = len(train_dataset)
        together = args.per_device_train_batch_size * args.world_size
        # A single rank takes a smaller last batch.
        examples = padded(train_dataset, together if args.world_size > 1 else 1)
        super().__init__(train_dataset=examples, args=args, **options)

        self._padding = len(examples) - self._real

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 (its interface)
        return Shuffled(real=self._real, padding=self._padding, seed=self.args.seed)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder; a missing padding token is the end token, as in NSS."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
    if not tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def incomplete_reason(log_history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why a training ended early; ``None`` when it took all its steps."""
    return next((str(entry[INCOMPLETE]) for entry in log_history if INCOMPLETE in entry), None)
