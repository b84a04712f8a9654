"""One training from start to end, and its result."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback

from nss_train.config import SafeSynthesizerParameters
from nss_train.training.callbacks import ReportSteps, TimeLimit
from nss_train.training.checkpoint import step_of
from nss_train.training.micro_batches import lengths_of
from nss_train.training.options import RunOptions
from nss_train.training.quality import GenerationQuality
from nss_train.training.reporters import choose_reporters
from nss_train.training.sharing import share_held
from nss_train.training.trainer import incomplete_reason, make_trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """The result of a training; the adapter is in the model that was passed in."""

    log_history: list[dict[str, Any]]
    steps: int
    reason: str | None
    """Why it ended early; ``None`` when it is complete."""
    seconds: float
    """Seconds in this process, without earlier processes of the same training."""
    ranks: int
    figures: dict[str, Any]
    """Figures to show that are the same for the same job."""
    speed: dict[str, float]
    weights: dict[str, torch.Tensor] | None = None
    """Weights of the whole adapter, where each rank's model holds a part of it."""
    share_held: float = 1.0
    """Share of the model's values that this rank holds."""
    privacy: dict[str, Any] | None = None
    """Result of a private training (``privacy_result.json``)."""

    @property
    def training_complete(self) -> bool:
        return self.reason is None


def fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Mapping[str, Dataset | None],
    config: SafeSynthesizerParameters,
    run: RunOptions,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    generation_eval: GenerationQuality | None = None,
) -> Fitted:
    """Train the adapter of ``model`` on ``examples["train"]``. Raises what :meth:`RunOptions.train` raises.

    ``generation_eval`` samples at each evaluation, so it needs ``examples["validation"]``.
    """
    if generation_eval is not None and examples["validation"] is None:
        logger.warning("generation_eval has no effect because there are no validation examples")
    training = examples["train"]
    if training is None:
        raise ValueError("there are no training examples")
    tokens = int(lengths_of(training).sum())
    limits = [] if run.max_seconds is None else [TimeLimit(run.max_seconds)]
    quality = [] if generation_eval is None else [generation_eval]
    trainer = make_trainer(
        model,
        tokenizer,
        config,
        output=run.output,
        examples=examples,
        seed=run.seed,
        checkpointing=run.checkpointing,
        callbacks=[ReportSteps(run.report, total_tokens=tokens), *callbacks, *limits, *quality, *run.keeping],
        reporters=choose_reporters(run.reporters),
        halvings=run.halvings,
        fsdp=run.fsdp,
        kernels=run.kernels,
        resume_from=run.resume_from,
    )
    first_step = 0 if run.resume_from is None else step_of(run.resume_from)
    seconds = run.train(trainer)
    return _fitted(trainer, examples=len(training), tokens=tokens, seconds=seconds, first_step=first_step)


def _fitted(trainer: Trainer, *, examples: int, tokens: int, seconds: float, first_step: int) -> Fitted:
    state = trainer.state
    done = (state.global_step - first_step) / max(state.max_steps, 1)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return Fitted(
        log_history=state.log_history,
        steps=state.global_step,
        reason=incomplete_reason(state.log_history),
        seconds=seconds,
        ranks=trainer.args.world_size,
        # Numbers of the training examples, each counted once.
        figures={"examples": examples, "tokens": tokens, "final_loss": losses[-1]},
        speed={"tokens_per_s": round(done * tokens / seconds, 1)},
        weights=trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None,
        share_held=round(share_held(trainer), 3),
    )
