"""The trainer of one private training, made of its plan, its units and what may be reported about it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from peft import PeftModel
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.data.assembly.packing import SPECIAL_TOKENS
from nss_train.model.memory import fits
from nss_train.model.metadata import metadata_from_json
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.step_budget import NullRecorder, StepBudget, StepRecorder
from nss_train.privacy.dpsgd.canaries import Canaries
from nss_train.privacy.dpsgd.gradients.micro_batches import Shapes, UnitExamples, read_units
from nss_train.privacy.dpsgd.progress import ReportMarks
from nss_train.privacy.dpsgd.trainer import OpacusDPTrainer, PrivateOptions
from nss_train.process import keep_memory_to_itself
from nss_train.training.arguments import training_arguments
from nss_train.training.options import RunOptions
from nss_train.training.ranks.group import group_state, is_first
from nss_train.training.reports.callbacks import EvaluateAtEnd, TimeLimit
from nss_train.training.steps.kernels import choose_head, worth_compiling
from nss_train.training.steps.micro_batches import PADDING

logger = logging.getLogger(__name__)

MOST_TOKENS, MOST_ROWS = 8192, 64
"""Most tokens and rows of a micro-batch: larger ones are no faster."""
UNITS_PER_ROW = 8
"""Expected units of a step per row of a micro-batch: on average half of a width's micro-batch is filler."""
GPU_TOKENS = 4096
"""Most tokens of a micro-batch on a GPU. Smaller ones take hardly less time there, so that filler is cheap:
an H100 computed 12,000 tokens of a model of 3 G per second by 1,755, and 22,000 by 7,000."""
ROW_BYTES = 2 * 2**30
"""Memory for the gradients of single rows, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Private:
    """The parts that make a training private."""

    plan: PrivacyPlan
    unit_of: npt.NDArray[np.int64]
    """The unit of each training example, ascending; shape (examples,)."""
    longest: int
    """Most tokens that an example may have, which is public."""
    record: StepRecorder = field(default_factory=NullRecorder)
    charged: int = 0
    """Steps of lost attempts: they count as spent."""

    @classmethod
    def read(cls, prepared: Path, *, record: StepRecorder, charged: int = 0) -> Private:
        """Read it from the folder that prepare_data wrote."""
        metadata = json.loads((prepared / "metadata.json").read_text(encoding="utf-8"))
        return cls(
            plan=PrivacyPlan.model_validate_json((prepared / "privacy.json").read_bytes()),
            unit_of=read_units(prepared / "units.arrow"),
            longest=metadata_from_json(metadata).max_seq_length,
            record=record,
            charged=charged,
        )


def make_private_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast | None,
    config: SafeSynthesizerParameters,
    examples: Mapping[str, Dataset | None],
    run: RunOptions,
    *,
    private: Private,
    callbacks: Sequence[TrainerCallback] = (),
) -> OpacusDPTrainer:
    """Return a trainer over the units of ``examples["train"]``."""
    keep_memory_to_itself()
    validation = examples["validation"]
    # There may be no unit with an effect; that is a training like any other.
    training = examples["train"] or Dataset.from_dict({"input_ids": [], "labels": []})
    units = UnitExamples(training, private.unit_of, pad_id=PADDING)
    reported = ReportMarks(run.report)
    limits = [] if run.max_seconds is None else [TimeLimit(run.max_seconds, may_end=reported.may_end)]
    for checkpoints in run.keeping:
        checkpoints.may_follow_the_clock = reported.ends_block
    last = [] if validation is None else [EvaluateAtEnd()]
    # A tracker would learn each step's loss and time.
    unseen = replace(run, reporters=(), fsdp=False)
    arguments = training_arguments(config.training, unseen, evaluate=validation is not None)
    trainer = OpacusDPTrainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=training,
        eval_dataset=validation,
        data_collator=None if tokenizer is None else DataCollatorForTokenClassification(tokenizer),
        callbacks=[reported, *limits, *callbacks, *run.keeping, *last],
        private=PrivateOptions(
            plan=private.plan,
            budget=StepBudget(private.plan, charged=private.charged, record=private.record),
            units=units,
            shapes=shapes_for(model, private, config, prompt=units.prompt, halvings=run.halvings),
            model_name=config.training.pretrained_model,
            most_rows=_most_rows(config),
            clock=config.guarantee.clock,
            strict=config.guarantee.strict,
            canaries=canaries_of(model, private.plan, config.guarantee.audit_canaries),
            head=choose_head(model, run.kernels, sharing=False),
            compiled=worth_compiling(model, _most_tokens(private), run.kernels),
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def canaries_of(model: PeftModel, plan: PrivacyPlan, count: int) -> Canaries | None:
    """Return ``count`` invented units to audit the training with; only rank 0 has them."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return Canaries(count, plan=plan, parameters=trained) if count and is_first() else None


def shapes_for(
    model: PeftModel, private: Private, config: SafeSynthesizerParameters, *, prompt: int, halvings: int
) -> Shapes:
    """Return shapes of micro-batches that fit into memory, halved for each time that it ran out."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gpu = model.device.type == "cuda"
    most_tokens, units_per_row = (GPU_TOKENS, 1) if gpu else (MOST_TOKENS, UNITS_PER_ROW)
    tokens = min(most_tokens, fits(model.config, bytes_per_value=model.dtype.itemsize))
    # Bytes per value: float32 as computed, and as clipped twice in a trial; 64 bits while norms are taken.
    rows = min(
        MOST_ROWS,
        math.ceil(private.plan.batch / group_state().num_processes / units_per_row),
        ROW_BYTES // sum(20 * weight.numel() for weight in trained),
    )
    most = config.guarantee.max_tokens_per_unit
    longest = private.longest if most is None else min(private.longest, prompt + most + SPECIAL_TOKENS)
    found = Shapes(longest=longest, tokens=max(1, tokens >> halvings), rows=max(1, rows >> halvings))
    fields = {"action": "privacy.micro_batch", "tokens": found.tokens, "rows": found.rows}
    logger.info(
        "micro-batches of %d tokens and %d rows because so much fits, and a step expects %d units",
        found.tokens,
        found.rows,
        private.plan.batch,
        extra=fields,
    )
    return found


def _most_rows(config: SafeSynthesizerParameters) -> int:
    """Return the most examples that a unit may have."""
    several = config.guarantee.unit_column is not None and config.data.group_training_examples_by is None
    return config.guarantee.max_records_per_unit if several else 1


def _most_tokens(private: Private) -> int:
    """Return the tokens of the training if all its examples were as long as they may be, which is public."""
    return int(private.plan.steps * private.plan.batch * private.longest)
