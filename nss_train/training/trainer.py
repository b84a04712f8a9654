"""The trainer for a model, its examples and a config, shared by stage and facade."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import (
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Kernels
from nss_train.model.compiled import eagerly
from nss_train.training.arguments import training_arguments
from nss_train.training.callbacks import INCOMPLETE, EvaluateAtEnd
from nss_train.training.divergence import check_loss
from nss_train.training.group import sum_over_ranks
from nss_train.training.metrics import BatchedMetrics, preprocess_logits_for_metrics
from nss_train.training.micro_batches import EXAMPLE_COLUMNS, as_examples
from nss_train.training.passes import Passes
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
    kernels: Kernels | None = None,
    resume_from: Path | None = None,
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
        fsdp=fsdp,
        resume_from=resume_from,
    )
    trainer = SharedBatchTrainer(
        model=model,
        args=arguments,
        passes=Passes.of(
            model,
            config.training,
            examples["train"],
            pad_id=int(tokenizer.pad_token_id or 0),
            halvings=halvings,
            kernels=kernels or Kernels(),
            resume_from=resume_from,
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
    """A trainer whose steps depend neither on the number of ranks nor on the size of micro-batches.

    A batch of its data loader is all that this rank contributes to an optimizer step. It is divided here
    into micro-batches that fit into memory, and each token counts equally, whatever the division.
    """

    def __init__(
        self, *, train_dataset: Dataset, args: TrainingArguments, passes: Passes, **options: Any
    ) -> None:
        self._real = len(train_dataset)
        together = args.per_device_train_batch_size * args.world_size
        # A single rank takes a smaller last batch.
        examples = padded(train_dataset, together if args.world_size > 1 else 1)
        super().__init__(
            train_dataset=examples.with_format("numpy", columns=list(EXAMPLE_COLUMNS)), args=args, **options
        )
        self._padding = len(examples) - self._real
        self._passes = passes

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 (its interface)
        return Shuffled(real=self._real, padding=self._padding, seed=self.args.seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches of examples as they are; :meth:`training_step` makes tensors of them."""
        collate: Any = self.data_collator
        self.data_collator = cast("Any", as_examples)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def get_batch_samples(
        self,
        epoch_iterator: Iterator[Any],
        num_batches: int,
        device: torch.device,  # noqa: ARG002
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return a step's examples, and how many tokens all ranks learn from theirs."""
        batches = list(islice(epoch_iterator, num_batches))
        mine = sum(example.learned for batch in batches for example in batch)
        return batches, sum_over_ranks(mine)

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Add the gradient of the step's mean loss per token; return the loss."""
        if not model.training:
            model.train()
        return self._passes.step(self, model, inputs, learned=int(num_items_in_batch or 1))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradients' norm, on its way to the CPU: it is there once the loss has been read."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return norm.to("cpu", non_blocking=True) if isinstance(norm, torch.Tensor) else norm

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """Evaluate without compiled layers, which would be compiled anew for its batches."""
        with eagerly():
            return super().evaluate(*args, **options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the figures of a step; raise :class:`ParameterError` for a loss that is no number."""
        if "loss" in logs:
            check_loss(logs["loss"], learning_rate=self.args.learning_rate)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002 (its interface)
        """Return 0: nobody reads the count, and making it walks the whole model."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        self._passes.save(Path(output_dir or str(self.args.output_dir)))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder; a missing padding token is the end token, as in NSS."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
    if not tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def incomplete_reason(log_history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why a training ended early; ``None`` when it took all its steps."""
    return next((str(entry[INCOMPLETE]) for entry in log_history if INCOMPLETE in entry), None)
