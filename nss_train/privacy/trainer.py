"""Training with differential privacy: DP-SGD (Abadi et al. 2016, arXiv 1607.00133) on the LoRA factors."""

from __future__ import annotations

import logging
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers.trainer_utils import TrainOutput

from nss_train.privacy.audit.canaries import Canaries
from nss_train.privacy.batches import IGNORED_LABEL, MicroBatch, Room, UnitExamples
from nss_train.privacy.budget import Budget
from nss_train.privacy.gradients import ClippedSum, Noise
from nss_train.privacy.losses import TokenLosses
from nss_train.privacy.mechanism import Mechanism
from nss_train.privacy.plan import PrivacyPlan
from nss_train.privacy.randomness import SecretRandomness
from nss_train.privacy.result import PrivacyResult
from nss_train.privacy.rows import RowGradients
from nss_train.training.callbacks import stop
from nss_train.training.group import group_state
from nss_train.training.trainer import AdapterTrainer

logger = logging.getLogger(__name__)

LOSS_CLIP = 10.0
"""Nats per token that a unit adds to a reported loss at most: a guess among 22,000 tokens."""
BUDGET_SPENT = "privacy_budget"
"""Reason of a training that ended before its last step because lost attempts had spent ε."""


class OpacusDPTrainer(AdapterTrainer):
    """Hugging Face's trainer with a loop of its own: every step is a Gaussian mechanism on sampled units."""

    def __init__(
        self,
        *,
        model: PeftModel,
        plan: PrivacyPlan,
        budget: Budget,
        units: UnitExamples,
        room: Room,
        strict: bool = True,
        randomness: SecretRandomness | None = None,
        canaries: Canaries | None = None,
        train_dataset: Dataset,
        **options: Any,
    ) -> None:
        super().__init__(model=model, train_dataset=train_dataset, **options)
        self._model = model
        self._plan, self._budget, self._units, self._room = plan, budget, units, room
        # Opacus sees nothing of a layer that is recomputed in any other way.
        self.args.gradient_checkpointing_kwargs = {"use_reentrant": True}
        secret = randomness or SecretRandomness()
        self._loss_noise = _loss_noise(plan, secret, strict=strict)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._mechanism = Mechanism.of(plan, self._trained, units=len(units), randomness=secret)
        self._canaries = canaries
        self._losses = ClippedSum([torch.zeros(1, device=self.args.device)], clip=LOSS_CLIP)

    def _inner_training_loop(
        self, *_: Any, resume_from_checkpoint: str | None = None, **__: Any
    ) -> TrainOutput:
        """All steps that the plan has and the budget affords, from the checkpoint's on."""
        self._begin(resume_from_checkpoint)
        self._rows = RowGradients(self._model)
        try:
            while self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
                if not self._budget.pay():
                    stop(self.state, self.control, BUDGET_SPENT)
                    break
                self._step()
        finally:
            self._rows.close()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        return TrainOutput(self.state.global_step, float("nan"), {})

    def _step(self) -> None:
        self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
        drawn, group = self._mechanism.draw(), group_state()
        mine = drawn[group.process_index :: group.num_processes]
        for batch in self._units.micro_batches(mine, self._room):
            self._add(batch.to(self.args.device))
        released = self._release()
        for parameter, gradient in zip(self._trained, released, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self.state.global_step += 1
        self.state.epoch = self.state.global_step * self._plan.sampling_rate
        self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
        self._log_evaluate_save()

    def _add(self, batch: MicroBatch) -> None:
        """Forward and backward of some units; each one's clipped gradient goes into the step's sum.

        A unit that is not complete yet is held: what is clipped is always the whole unit's.
        """
        with self.accelerator.autocast():
            losses = row_losses(self._model, batch)
        losses.sum().backward()
        _into(self._mechanism.gradients, self._rows.take(), batch)
        if self._loss_noise is not None:
            # Each row's share of its unit's mean loss per token.
            _into(self._losses, [(losses.detach() / batch.learned)[:, None]], batch)

    def _release(self) -> list[torch.Tensor]:
        """The step's gradient, with the canaries among the units where there are any."""
        if self._canaries is None:
            return self._mechanism.release()
        self._canaries.join(self._mechanism.gradients)
        released = self._mechanism.release()
        self._canaries.see(released)
        return released

    def _log_evaluate_save(self) -> None:
        if self.control.should_log:
            self.control.should_log = False
            self.log(self._figures())
        if self.control.should_evaluate:
            self.evaluate()
            # It leaves the model in evaluation mode, in which Opacus sees nothing of a step.
            self._model.train()
        if self.control.should_save:
            self._save_checkpoint(self._model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _figures(self) -> dict[str, float]:
        """What may be known of a step."""
        found = {
            "learning_rate": self._get_learning_rate(),
            "epsilon": self._plan.spent_at_most(self._budget.steps),
        }
        if self._loss_noise is not None:
            name = "noisy_loss" if self._plan.report_loss else "loss"
            (loss,) = self._losses.release(self._loss_noise, batch=self._plan.batch)
            found[name] = float(loss)
        return found

    def _begin(self, checkpoint: str | None) -> None:
        """Optimizer, schedule and state; those of a checkpoint when there is one."""
        self._optimizer = self.create_optimizer()
        self._schedule = self.create_scheduler(self._plan.steps)
        self._init_training_state(self._plan.steps, self._plan.steps, 1, checkpoint, None)
        if checkpoint is not None:
            self._load_optimizer_and_scheduler(checkpoint)
        self.callback_handler.optimizer = self._optimizer
        self.callback_handler.lr_scheduler = self._schedule
        self._model.train()
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing: whoever goes on draws anew."""

    def get_epsilon(self) -> float:
        """ε of all steps that were paid for, accounted anew, at the plan's δ."""
        return self._plan.spent(self._budget.steps)

    def privacy_result(self) -> PrivacyResult:
        """What was spent so far; steps whose update was lost with a machine included."""
        return PrivacyResult(
            steps_applied=self._budget.steps,
            epsilon_spent=self.get_epsilon(),
            delta=self._plan.delta,
            audit=None if self._canaries is None else self._canaries.result(),
            loss_reported=self._plan.report_loss,
        )


def row_losses(model: torch.nn.Module, batch: MicroBatch) -> torch.Tensor:
    """Sum of the losses of each row's tokens; shape (rows,). No row's depends on another row.

    The prompt is not learned, so that no logits are computed for it: they are most of the work of a
    small model with a large vocabulary.
    """
    first = max(1, int((batch.labels != IGNORED_LABEL).any(0).nonzero()[0]))
    targets = batch.labels[:, first:]
    # The position before a token predicts it.
    kept = torch.arange(first - 1, batch.labels.shape[1] - 1, device=batch.labels.device)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=kept).logits
    losses = TokenLosses.apply(logits.flatten(0, 1).float(), targets.flatten())
    found: torch.Tensor = losses.view(targets.shape).sum(1)
    return found


def _into(total: ClippedSum, rows: list[torch.Tensor], batch: MicroBatch) -> None:
    if batch.ends:
        total.add(rows, batch.places)
    else:
        total.hold(rows)


def _loss_noise(plan: PrivacyPlan, secret: SecretRandomness, *, strict: bool) -> Noise | None:
    """``None`` when no loss may be told."""
    if plan.report_loss:
        return Noise(deviation=plan.loss_noise * LOSS_CLIP, randomness=secret)
    return None if strict else Noise(deviation=0.0, randomness=secret)
