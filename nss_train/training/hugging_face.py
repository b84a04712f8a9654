"""Hugging Face's trainer as this library needs it: the only module that uses the trainer's private methods.

They are private, so that any release may change them: transformers is pinned to one version, and each use
here says why no public method will do.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from nss_train.training.fitted import Fitted
from nss_train.training.options import RunOptions
from nss_train.training.ranks.sharing import share_between_cpus


class AdapterTrainer(Trainer, ABC):
    """Hugging Face's trainer with checkpoints that hold only the adapter."""

    @abstractmethod
    def fitted(self, run: RunOptions, *, seconds: float) -> Fitted:
        """Return the result of a training that has ended after so many seconds."""

    def save_more(self, folder: Path) -> None:
        """Write what a checkpoint holds besides the adapter and the trainer's own files: here nothing."""

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator as the base class does, with FSDP for ranks on CPUs too.

        Without FSDP it wraps no model for several ranks: they exchange the adapter's gradients alone, once a
        step (:mod:`~nss_train.training.steps.reduction`). Its other way to prepare a model is that of
        evaluations.
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
        """Save the adapter only: resuming needs neither the tokenizer nor pickled arguments.

        The public ``save_model`` would do the same for a single process, but it is here that it decides which
        rank writes, and gathers the weights that FSDP divides.
        """
        folder = self.args.output_dir if output_dir is None else output_dir
        model: PeftModel = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)
        self.save_more(Path(str(folder)))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradients' norm, on its way to the CPU: it is there once the loss has been read.

        The public ``log`` gets it as a number, for which the device had to be waited for a second time.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return norm.to("cpu", non_blocking=True) if isinstance(norm, torch.Tensor) else norm


class LoopTrainer(AdapterTrainer):
    """A trainer whose steps its subclass takes itself, in :meth:`take_all_steps`.

    Hugging Face's part is what comes before and after: optimizer, schedule, state, callbacks, checkpoints.
    """

    def __init__(self, model: PeftModel, *, steps: int, **options: Any) -> None:
        super().__init__(model=model, **options)
        self._model, self._steps = model, steps

    @abstractmethod
    def take_all_steps(self, optimizer: Optimizer, schedule: LRScheduler) -> None:
        """Take the steps that are left; count them in the trainer's state, and call its callbacks."""

    def learning_rate(self) -> float:
        """Return the current learning rate; only the private method knows every kind of schedule."""
        return float(self._get_learning_rate())

    def save_checkpoint(self) -> None:
        """Save adapter, optimizer, schedule and state; no public method saves more than the model."""
        self._save_checkpoint(self._model, trial=None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _inner_training_loop(
        self, *_: Any, resume_from_checkpoint: str | None = None, **__: Any
    ) -> TrainOutput:
        """Take all steps, starting from the checkpoint: the public ``train`` has no other loop to replace."""
        self.take_all_steps(*self._begin(resume_from_checkpoint))
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        return TrainOutput(self.state.global_step, float("nan"), {})

    def _begin(self, checkpoint: str | None) -> tuple[Optimizer, LRScheduler]:
        """Set up and return optimizer and schedule; set up the state, from a checkpoint if there is one.

        The two private methods are the ones with which Hugging Face's loop reads what it has saved.
        """
        optimizer = self.create_optimizer()
        schedule = self.create_scheduler(self._steps)
        self._init_training_state(self._steps, self._steps, 1, checkpoint, None)
        if checkpoint is not None:
            self._load_optimizer_and_scheduler(checkpoint)
        self.callback_handler.optimizer = optimizer
        self.callback_handler.lr_scheduler = schedule
        self._model.train()
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        return optimizer, schedule

    def _save_rng_state(self, output_dir: str) -> None:
        """Save nothing: by default a checkpoint holds the generators' states, but the loop draws anew."""
