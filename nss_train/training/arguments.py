"""NSS's training arguments, adapted to this machine."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import SchedulerType, TrainingArguments

from nss_train.config.sections.training import TrainingHyperparams, refused_schedule
from nss_train.errors import ParameterError, Problem
from nss_train.training.options import RunOptions
from nss_train.training.ranks.group import group_state
from nss_train.training.ranks.sharing import FSDP
from nss_train.training.reports.reporters import choose_reporters

OPTIMIZER = "optimizer.pt"
"""File of a checkpoint, named by transformers."""
BITSANDBYTES_MOMENT = "state1"

logger = logging.getLogger(__name__)


class Arguments(TrainingArguments):
    """The trainer's arguments, with a device that a checkpoint can be loaded to."""

    @property
    def device(self) -> torch.device:
        """Return the device, ``cpu`` without Accelerate's rank (``cpu:0``), which ``torch.load`` rejects."""
        found: torch.device = super().device
        return torch.device("cpu") if found.type == "cpu" else found


def training_arguments(
    training: TrainingHyperparams, run: RunOptions, *, evaluate: bool
) -> TrainingArguments:
    """Return the arguments of NSS; each exception is logged with its reason.

    A training that resumes from a checkpoint keeps the optimizer whose state it holds.
    """
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if not bf16:
        logger.info("bf16=False because this device has no bfloat16 units")
    return Arguments(
        output_dir=str(run.output),
        # All that a rank contributes to a step; the trainer divides it into micro-batches.
        per_device_train_batch_size=training.effective_batch_size // group_state().num_processes,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        learning_rate=_number(training.learning_rate),
        lr_scheduler_type=_scheduler(training.lr_scheduler),
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_steps,
        optim=_optimizer(cuda=cuda, fsdp=run.fsdp, resume_from=run.resume_from),
        bf16=bf16,
        use_cpu=not cuda,
        gradient_checkpointing=run.checkpointing,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=training.validation_steps if evaluate else None,
        do_eval=evaluate,
        include_for_metrics=["loss"] if evaluate else [],
        batch_eval_metrics=evaluate,
        # The stage decides when a checkpoint is due.
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        # A loss that is no number ends the training, so it need not be looked for before it is logged.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(choose_reporters(run.reporters)) or "none",
        ddp_find_unused_parameters=False,
        fsdp=run.fsdp,  # type: ignore[arg-type]  # a string, as annotated, is deprecated
        fsdp_config=FSDP if run.fsdp else None,
        dataloader_pin_memory=cuda,
        seed=run.seed,
    )


def _optimizer(*, cuda: bool, fsdp: bool, resume_from: Path | None) -> str:
    if cuda and not fsdp and resume_from is not None and _is_paged(resume_from / OPTIMIZER):
        logger.info("optim=paged_adamw_32bit because the checkpoint holds its state")
        return "paged_adamw_32bit"
    if cuda and not fsdp:
        logger.info("optim=adamw_torch_fused because the adapter and its moments are on one device")
        return "adamw_torch_fused"
    reason = "each rank steps its own share of the weights" if cuda else "there is no CUDA device"
    logger.info("optim=adamw_torch because %s", reason)
    return "adamw_torch"


def _is_paged(state: Path) -> bool:
    """Tell whether an optimizer's state is that of bitsandbytes, with which older releases trained."""
    if not state.is_file():
        return False
    kept = torch.load(state, map_location="meta", weights_only=True)["state"]
    return any(BITSANDBYTES_MOMENT in moments for moments in kept.values())


def _scheduler(name: str) -> SchedulerType:
    refused = refused_schedule(name)
    if refused:
        problem = Problem(field="training.lr_scheduler", value=name, remedy=refused)
        raise ParameterError("This learning-rate schedule cannot be followed.", [problem])
    return SchedulerType(name)


def _number(learning_rate: float | str) -> float:
    if isinstance(learning_rate, str):
        raise TypeError(f"learning_rate was not resolved: {learning_rate!r}")
    return learning_rate
