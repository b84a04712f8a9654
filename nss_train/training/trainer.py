"""The trainer for a model, its examples and a config, shared by stage and facade."""

from __future__ import annotations

import functools
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
from nss_train.training.metrics import BatchedMetrics, preprocess_logits_for_metrics
from nss_train.training.micro_batches import EXAMPLE_COLUMNS, as_examples
from nss_train.training.passes import Passes
from nss_train.training.reduction import add_over_ranks, begin_alike
from nss_train.training.sampling import Shuffled
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
            sharing=fsdp,
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
        """Create the accelerator as the base class does, with FSDP for ranks on CPUs too.

        Without FSDP nothing is wrapped: ranks exchange the adapter's gradients alone, once a step.
        """
        super().create_accelerator_and_postprocess()
        sharing = self.args.fsdp_plugin_args
        if sharing is None:
            unwrapped = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
            self.accelerator.prepare_model = unwrapped
        elif not torch.cuda.is_available():
            share_between_cpus(sharing)
            self.is_fsdp_enabled = True

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the adapter only: resuming needs neither the tokenizer nor pickled arguments."""
        folder = self.args.output_dir if output_dir is None else output_dir
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)


class SharedBatchTrainer(AdapterTrainer):
    """A trainer whose steps depend neither on the number of ranks nor on the size of micro-batches.

    A batch of its data loader is a whole step. Its rows are dealt to the ranks, and divided there into
    micro-batches that fit into memory; each token counts equally, whatever the division.
    """

    def __init__(
        self, *, train_dataset: Dataset, args: TrainingArguments, passes: Passes, **options: Any
    ) -> None:
        examples = train_dataset.with_format("numpy", columns=list(EXAMPLE_COLUMNS))
        super().__init__(train_dataset=examples, args=args, **options)
        self._passes = passes
        self._trained: list[nn.Parameter] = []

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002 (its interface)
        return Shuffled(len(cast("Dataset", self.train_dataset)), seed=self.args.seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the examples of whole steps, the same on every rank; :meth:`training_step` makes tensors."""
        return DataLoader(
            cast("Any", self.train_dataset),
            batch_size=self.args.train_batch_size * self.args.world_size,
            sampler=self._get_train_sampler(),
            collate_fn=as_examples,
        )

    def _prepare_for_training(self, *of: Any, **options: Any) -> Any:
        """Prepare as the base class does, and let all ranks begin with the same adapter."""
        prepared = super()._prepare_for_training(*of, **options)
        if not self.is_fsdp_enabled:
            self._trained = [
                weight for weight in cast("nn.Module", self.model).parameters() if weight.requires_grad
            ]
            begin_alike(self._trained)
        return prepared

    def get_batch_samples(
        self,
        epoch_iterator: Iterator[Any],
        num_batches: int,
        device: torch.device,  # noqa: ARG002
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return a step's examples, and how many tokens are learned from them."""
        batches = list(islice(epoch_iterator, num_batches))
        return batches, sum(example.learned for batch in batches for example in batch)

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Make the gradient of the step's mean loss per token; return the loss, to be averaged over ranks."""
        if not model.training:
            model.train()
        part = self._passes.step(self, model, inputs, learned=int(num_items_in_batch or 1))
        if not self.is_fsdp_enabled:
            add_over_ranks(self._trained)
        loss: torch.Tensor = part * self.args.world_size
        return loss

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
