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
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.model.layers.compiled import eagerly
from nss_train.training.arguments import training_arguments
from nss_train.training.checkpoint import step_of
from nss_train.training.fitted import Fitted, incomplete_reason
from nss_train.training.hugging_face import AdapterTrainer
from nss_train.training.options import RunOptions
from nss_train.training.ranks.sharing import share_held
from nss_train.training.reports.callbacks import EvaluateAtEnd, ReportSteps, TimeLimit
from nss_train.training.reports.metrics import BatchedMetrics, preprocess_logits_for_metrics
from nss_train.training.steps.divergence import check_loss
from nss_train.training.steps.micro_batches import EXAMPLE_COLUMNS, as_examples, lengths_of
from nss_train.training.steps.passes import Passes
from nss_train.training.steps.reduction import add_over_ranks, begin_alike, trained
from nss_train.training.steps.sampling import Shuffled


def make_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast | None,
    config: SafeSynthesizerParameters,
    examples: Mapping[str, Dataset | None],
    run: RunOptions,
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> SharedBatchTrainer:
    """Return a trainer on ``examples["train"]``, evaluated on ``examples["validation"]`` if there are any.

    The ``tokenizer`` pads the rows of evaluations, so without these there need be none.
    """
    training, validation = examples["train"], examples["validation"]
    if training is None:
        raise ValueError("there are no training examples")
    evaluate = validation is not None
    limits = [] if run.max_seconds is None else [TimeLimit(run.max_seconds)]
    lengths = lengths_of(training)
    tokens = int(lengths.sum())
    last = [EvaluateAtEnd()] if evaluate else []
    trainer = SharedBatchTrainer(
        model=model,
        args=training_arguments(config.training, run, evaluate=evaluate),
        passes=Passes.of(
            model,
            config.training,
            lengths,
            halvings=run.halvings,
            kernels=run.kernels,
            resume_from=run.resume_from,
            sharing=run.fsdp,
        ),
        train_dataset=training,
        tokens=tokens,
        eval_dataset=validation,
        data_collator=None if tokenizer is None else DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=BatchedMetrics() if evaluate else None,
        preprocess_logits_for_metrics=preprocess_logits_for_metrics if evaluate else None,
        callbacks=[ReportSteps(run.report, total_tokens=tokens), *limits, *callbacks, *run.keeping, *last],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class SharedBatchTrainer(AdapterTrainer):
    """A trainer whose steps depend neither on the number of ranks nor on the size of micro-batches.

    A batch of its data loader is a whole step. Its rows are dealt to the ranks, and divided there into
    micro-batches that fit into memory; each token counts equally, whatever the division.
    """

    def __init__(
        self, *, train_dataset: Dataset, tokens: int, args: TrainingArguments, passes: Passes, **options: Any
    ) -> None:
        super().__init__(
            train_dataset=train_dataset.with_format("numpy", columns=list(EXAMPLE_COLUMNS)),
            args=args,
            **options,
        )
        self._examples, self._tokens = len(train_dataset), tokens
        self._passes = passes
        self._exchanged: list[nn.Parameter] | None = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the examples of whole steps, the same on every rank; :meth:`training_step` makes tensors."""
        return DataLoader(
            cast("Any", self.train_dataset),
            batch_size=self.args.train_batch_size * self.args.world_size,
            sampler=Shuffled(self._examples, seed=self.args.seed),
            collate_fn=as_examples,
        )

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
        if self._exchanged is None:
            self._exchanged = [] if self.is_fsdp_enabled else trained(model)
            begin_alike(self._exchanged)
        part = self._passes.step(self, model, inputs, learned=int(num_items_in_batch or 1))
        add_over_ranks(self._exchanged)
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

    def save_more(self, folder: Path) -> None:
        """Write the size of micro-batches, which a resumed training keeps."""
        self._passes.save(folder)

    def fitted(self, run: RunOptions, *, seconds: float) -> Fitted:
        """Return the result with the numbers of the training examples, each counted once."""
        state, first = self.state, 0 if run.resume_from is None else step_of(run.resume_from)
        done = (state.global_step - first) / max(state.max_steps, 1)
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        return Fitted(
            log_history=state.log_history,
            steps=state.global_step,
            reason=incomplete_reason(state.log_history),
            seconds=seconds,
            ranks=self.args.world_size,
            figures={"examples": self._examples, "tokens": self._tokens, "final_loss": losses[-1]},
            speed={"tokens_per_s": round(done * self._tokens / seconds, 1)},
            weights=self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None,
            share_held=round(share_held(self), 3),
        )


def load_transformers_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model folder; a missing padding token is the end token, as in NSS."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
    if not tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
