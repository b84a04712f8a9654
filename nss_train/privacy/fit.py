"""One private training from start to end, and what may be said of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Frozen, Report, StageDrained
from nss_train.model.memory import fits
from nss_train.privacy.audit.canaries import Canaries, TrainingAudit
from nss_train.privacy.batches import Room, UnitExamples, read_units
from nss_train.privacy.budget import Budget, Record
from nss_train.privacy.plan import PrivacyPlan
from nss_train.privacy.progress import ReportPrivateSteps
from nss_train.privacy.trainer import OpacusDPTrainer
from nss_train.process import keep_memory_to_itself
from nss_train.training.arguments import training_arguments
from nss_train.training.callbacks import TimeLimit
from nss_train.training.checkpoint import Checkpoints, step_of
from nss_train.training.fit import Fitted
from nss_train.training.group import is_first
from nss_train.training.out_of_memory import typed_out_of_memory
from nss_train.training.trainer import incomplete_reason

logger = logging.getLogger(__name__)

MOST_TOKENS, MOST_ROWS = 8192, 64
"""Of a micro-batch: larger ones are no faster."""
ROW_BYTES = 2 * 2**30
"""For the gradients of single rows."""


class PrivacyResult(Frozen):
    """``privacy_result.json``: what a private training has spent."""

    steps_applied: int
    """Over all attempts, those included whose update was lost with a machine."""
    epsilon_spent: float
    delta: float
    loss_reported: bool
    audit: TrainingAudit | None = None
    """What its canaries prove."""


def fit_privately(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Mapping[str, Dataset | None],
    config: SafeSynthesizerParameters,
    *,
    prepared: Path,
    output: Path,
    seed: int,
    checkpointing: bool,
    report: Report,
    record: Record,
    charged: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    max_seconds: float | None = None,
    halvings: int = 0,
    checkpoints: Checkpoints | None = None,
    resume_from: Path | None = None,
) -> Fitted:
    """Train the adapter of ``model`` on ``examples["train"]`` by the plan in ``prepared``.

    ``seed`` decides nothing that has to be secret. ``charged`` steps were taken by attempts that are
    lost. Raises :class:`~nss_train.errors.BudgetExceeded` instead of handing over an adapter that cost
    too much, and :class:`~nss_train.contract.StageDrained` when the training was asked to leave.
    """
    keep_memory_to_itself()
    training = examples["train"]
    if training is None:
        raise ValueError("there are no training examples")
    plan = PrivacyPlan.model_validate_json((prepared / "privacy.json").read_bytes())
    budget = Budget(plan, charged=charged, record=record)
    limits = [] if max_seconds is None else [TimeLimit(max_seconds)]
    keeping = [] if checkpoints is None else [checkpoints]
    canaries = canaries_of(model, plan, config.guarantee.audit_canaries)
    trainer = OpacusDPTrainer(
        model=model,
        args=training_arguments(
            config.training,
            output=output,
            seed=seed,
            checkpointing=checkpointing,
            evaluate=examples["validation"] is not None,
        ),
        processing_class=tokenizer,
        train_dataset=training,
        eval_dataset=examples["validation"],
        callbacks=[ReportPrivateSteps(report, batch=plan.batch), *callbacks, *limits, *keeping],
        plan=plan,
        budget=budget,
        units=UnitExamples(
            training, read_units(prepared / "units.arrow"), pad_id=int(tokenizer.pad_token_id or 0)
        ),
        room=room_for(model, halvings=halvings),
        strict=config.guarantee.strict,
        canaries=canaries,
    )
    trainer.remove_callback(PrinterCallback)
    started, first = time.monotonic(), 0 if resume_from is None else step_of(resume_from)
    with typed_out_of_memory():
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    if checkpoints is not None and checkpoints.drained:
        raise StageDrained(trainer.state.global_step)
    return _fitted(trainer, plan, budget, canaries, seconds=time.monotonic() - started, first=first)


def canaries_of(model: PeftModel, plan: PrivacyPlan, count: int) -> Canaries | None:
    """So many invented units that the training is audited with; rank 0 alone has them."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return Canaries(count, plan=plan, parameters=trained) if count and is_first() else None


def room_for(model: PeftModel, *, halvings: int) -> Room:
    """Micro-batches that fit into memory; half as large for each time that it ran out."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    tokens = min(MOST_TOKENS, fits(model.config, bytes_per_value=model.dtype.itemsize))
    # Gradients of single rows, in float32: once as computed, once as clipped.
    rows = min(MOST_ROWS, ROW_BYTES // sum(8 * weight.numel() for weight in trained))
    found = Room(tokens=max(1, tokens >> halvings), rows=max(1, rows >> halvings))
    fields = {"action": "privacy.micro_batch", "tokens": found.tokens, "rows": found.rows}
    logger.info(
        "micro-batches of %d tokens and %d rows because so much fits", found.tokens, found.rows, extra=fields
    )
    return found


def _fitted(
    trainer: OpacusDPTrainer,
    plan: PrivacyPlan,
    budget: Budget,
    canaries: Canaries | None,
    *,
    seconds: float,
    first: int,
) -> Fitted:
    history, done = trainer.state.log_history, trainer.state.global_step - first
    result = PrivacyResult(
        steps_applied=budget.steps,
        epsilon_spent=budget.settle(),
        delta=plan.delta,
        loss_reported=plan.report_loss or not trainer.is_strict,
        audit=None if canaries is None else canaries.result(),
    )
    logger.info(
        "ε=%.4f was spent in %d steps", result.epsilon_spent, budget.steps, extra={"action": "privacy.spent"}
    )
    return Fitted(
        log_history=history,
        steps=trainer.state.global_step,
        reason=incomplete_reason(history),
        seconds=seconds,
        ranks=trainer.args.world_size,
        figures={"steps_applied": budget.steps, "epsilon_spent": round(result.epsilon_spent, 4)},
        # Expected ones: how many were drawn is nobody's business.
        speed={"units_per_s": round(done * plan.batch / seconds, 1)},
        privacy=result.model_dump(mode="json"),
    )
