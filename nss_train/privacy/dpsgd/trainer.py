"""Training with differential privacy: DP-SGD (Abadi et al. 2016, arXiv 1607.00133) on the LoRA factors."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nss_train.config.sections.guarantee import Clock
from nss_train.model.layers.compiled import eagerly, eagerly_where_not_compiled
from nss_train.model.layers.loss import Head
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.result import Coupling, PrivacyResult, check_release
from nss_train.privacy.accounting.step_budget import StepBudget
from nss_train.privacy.coupling.trial import Trial
from nss_train.privacy.dpsgd.canaries import Canaries
from nss_train.privacy.dpsgd.clock import Pace, Slots, Unpaced
from nss_train.privacy.dpsgd.gradients.micro_batches import Shapes, UnitExamples
from nss_train.privacy.dpsgd.gradients.passes import Passes
from nss_train.privacy.dpsgd.gradients.repeatable import repeatable_kernels
from nss_train.privacy.dpsgd.loop import Descent, train_privately
from nss_train.privacy.dpsgd.mechanism import LossSum, Mechanism
from nss_train.privacy.dpsgd.noise_ahead import NoiseAhead, drawing_ahead
from nss_train.privacy.dpsgd.progress import Marks
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.fitted import Fitted, incomplete_reason
from nss_train.training.hugging_face import LoopTrainer
from nss_train.training.options import RunOptions
from nss_train.training.reports.callbacks import stop

logger = logging.getLogger(__name__)

_REASON_CHARS = 500
WHOLE_MINUTE_S = 60
BUDGET_SPENT = "privacy_budget"
"""Reason why a training ended before its last step: lost attempts had spent ε."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivateOptions:
    """How the steps of a private training are taken, and what may be seen of them."""

    plan: PrivacyPlan
    budget: StepBudget
    units: UnitExamples
    shapes: Shapes
    """Shapes of micro-batches."""
    model_name: str
    """Name of the base model in errors."""
    most_rows: int = 1
    """Most examples that a unit may have."""
    clock: Clock = Clock.COARSE
    strict: bool = True
    randomness: SecretRandomness = field(default_factory=SecretRandomness)
    canaries: Canaries | None = None
    head: Head | None = None
    """Head that computes the loss in parts; ``None``: the model computes its own."""
    compiled: bool = False
    """Whether layers are compiled, if a trial of them succeeds."""


class OpacusDPTrainer(LoopTrainer):
    """Hugging Face's trainer with a loop of its own: every step is a Gaussian mechanism on sampled units."""

    def __init__(
        self, *, model: PeftModel, private: PrivateOptions, train_dataset: Dataset, **options: Any
    ) -> None:
        super().__init__(model, train_dataset=train_dataset, steps=private.plan.steps, **options)
        self._private, self._plan, self._budget = private, private.plan, private.budget
        self.args.gradient_checkpointing_kwargs = {"use_reentrant": False}
        self._reports_loss = private.plan.report_loss or not private.strict
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self.coupling: Coupling | None = None
        """Result of the check of invented units, set once it has run."""
        self.marks: Marks | None = None

    def take_all_steps(self, optimizer: Optimizer, schedule: LRScheduler) -> None:
        """Take all steps that the plan has and the budget allows, once a trial has shown how."""
        descent = Descent(weights=self._trained, optimizer=optimizer, schedule=schedule)
        passes = Passes(
            self._model, device=self.args.device, autocast=self.accelerator.autocast, head=self._private.head
        )
        try:
            with repeatable_kernels(self.args.device):
                trial = self._try(passes)
                self.coupling, self.marks = trial.coupling, trial.marks
                # What was compiled, and for what, must not depend on the units of earlier steps.
                with (
                    eagerly_where_not_compiled(),
                    drawing_ahead(self._trained, self._private.randomness) as ahead,
                ):
                    self.take_steps(descent, passes, trial, ahead)
        finally:
            passes.close()
        self._budget.leave()

    def _try(self, passes: Passes) -> Trial:
        """Return the results of a trial, of compiled layers where these are asked for and work."""
        trial = self._compiled_trial(passes) if self._private.compiled else None
        trial = trial or self._trial_of(passes)
        # Lost attempts may have spent some of the steps: what is left is known, and so is the end.
        trial = replace(trial, marks=trial.marks.until(self.state.global_step + self._budget.left))
        for callback in self.callback_handler.callbacks:
            if hasattr(callback, "marks"):
                callback.marks = trial.marks
        return trial

    def _compiled_trial(self, passes: Passes) -> Trial | None:
        """Return a trial of compiled layers; ``None`` where they fail, and then nothing is compiled."""
        try:
            passes.compile()
            return self._trial_of(passes)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 (a compiler may raise anything)
            # Only invented units were seen, so that the reason is public.
            logger.warning(
                "layers=eager because a trial of compiled ones failed: %s",
                str(error)[:_REASON_CHARS],
                extra={"action": "privacy.layers"},
            )
            passes.uncompile()
            return None

    def _trial_of(self, passes: Passes) -> Trial:
        return Trial.of(
            passes,
            self._private.shapes,
            self._plan,
            name=self._private.model_name,
            prompt=self._private.units.prompt,
            most_rows=self._private.most_rows,
            dtype=torch.bfloat16 if self.args.bf16 else self._model.dtype,
            clock=self._private.clock,
            randomness=self._private.randomness,
        )

    def take_steps(self, descent: Descent, passes: Passes, trial: Trial, ahead: NoiseAhead | None) -> None:
        """Take private steps until the plan, the budget or a callback ends them."""
        pace = _pace(trial, passes)

        def after_step(loss: torch.Tensor | None) -> None:
            pace.wait()  # effects become visible between the slots only
            self._after_step(trial.marks, None if loss is None else float(loss))

        pace.wait()
        train_privately(
            self._mechanism(trial.coupling.slack, ahead),
            partial(self._private.units.micro_batches, shapes=self._private.shapes),
            passes.gradients,
            descent,
            begin_step=partial(self._begin_step, trial.marks),
            after_step=after_step,
        )

    def _mechanism(self, slack: float, ahead: NoiseAhead | None) -> Mechanism:
        secret, device = self._private.randomness, self.args.device
        reported = LossSum.of(self._plan, device=device, randomness=secret, slack=slack)
        return Mechanism.of(
            self._plan,
            self._trained,
            units=len(self._private.units),
            randomness=secret,
            slack=slack,
            ahead=ahead,
            losses=reported if self._reports_loss else None,
            canaries=self._private.canaries,
        )

    def _begin_step(self, marks: Marks) -> bool:
        """Pay for a step if there is one more; tell whether it may be taken."""
        done = self.state.global_step
        if done >= self.state.max_steps or self.control.should_training_stop:
            return False
        if not self._budget.take(ahead=marks.paid_up_to(done) - done):
            stop(self.state, self.control, BUDGET_SPENT)
            return False
        self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
        return True

    def _after_step(self, marks: Marks, loss: float | None) -> None:
        """Count the step and report what may be reported; evaluate and save where due."""
        self.state.global_step += 1
        self.state.epoch = self.state.global_step * self._plan.sampling_rate
        self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
        self.control.should_log = False
        found = {} if loss is None else {"noisy_loss" if self._plan.report_loss else "loss": loss}
        if marks.at(self.state.global_step):
            self.log(self._figures() | found)
        elif found:
            # A log listener would learn the time of writing; the history does not contain it.
            self.state.log_history.append(found | {"step": self.state.global_step})
        if self.control.should_evaluate:
            with eagerly():
                self.evaluate()
            # It leaves the model in evaluation mode.
            self._model.train()
        if self.control.should_save:
            self.save_checkpoint()

    def _figures(self) -> dict[str, float]:
        """Return the figures that may be public at a mark."""
        return {
            "learning_rate": self.learning_rate(),
            "epsilon": self._plan.spent_at_most(self._budget.steps),
        }

    def fitted(self, run: RunOptions, *, seconds: float) -> Fitted:  # noqa: ARG002 (its interface)
        """Return what may be published about the training, with its price.

        Raises :class:`~nss_train.errors.BudgetExceeded` for an adapter that cost too much.
        """
        result, history = self.privacy_result(), self.state.log_history
        check_release(self._plan, result)
        logger.info(
            "ε=%.4f was spent in %d steps",
            result.epsilon_spent,
            result.steps_applied,
            extra={"action": "privacy.spent"},
        )
        return Fitted(
            log_history=history,
            steps=self.state.global_step,
            reason=incomplete_reason(history),
            # The exact time would depend on the numbers of units drawn.
            seconds=math.ceil(seconds / WHOLE_MINUTE_S) * WHOLE_MINUTE_S if self._private.strict else seconds,
            ranks=self.args.world_size,
            figures={
                "steps_applied": result.steps_applied,
                "epsilon_spent": round(result.epsilon_spent, 4),
                "slack": result.slack,
            },
            speed={},
            privacy=result.model_dump(mode="json"),
        )

    def get_epsilon(self) -> float:
        """Return ε of all paid steps, accounted anew, at the plan's δ."""
        return self._plan.spent(self._budget.steps)

    def privacy_result(self) -> PrivacyResult:
        """Return what was spent so far, including steps whose update was lost with a machine."""
        return PrivacyResult(
            steps_applied=self._budget.steps,
            epsilon_spent=self.get_epsilon(),
            delta=self._plan.delta,
            audit=None if self._private.canaries is None else self._private.canaries.result(),
            loss_reported=self._plan.report_loss,
            slack=0.0 if self.coupling is None else self.coupling.slack,
            coupling=self.coupling,
        )


def _pace(trial: Trial, passes: Passes) -> Pace:
    return Unpaced() if trial.slot_s is None else Slots(trial.slot_s, now=passes.now)
