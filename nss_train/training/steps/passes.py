"""Forward and backward passes of an optimizer step, in micro-batches that fit into the device's memory."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import nn
from transformers import Trainer

from nss_train.config.sections.training import TrainingHyperparams
from nss_train.contract import Kernels
from nss_train.errors import OutOfMemory
from nss_train.model.layers.compiled import compile_layers, compiled_head, eagerly, uncompiled
from nss_train.model.layers.loss import Head
from nss_train.training.steps.calibration import USUAL_TOKEN, find_room, proved
from nss_train.training.steps.kernels import base_of, choose_head, worth_compiling
from nss_train.training.steps.known_rooms import KnownRooms, room_key
from nss_train.training.steps.micro_batches import Example, MicroBatch, Room, micro_batches
from nss_train.training.steps.out_of_memory import typed_out_of_memory
from nss_train.training.steps.reduction import dealt, smallest

logger = logging.getLogger(__name__)

ROOM_FILE = "room.json"
"""File of a checkpoint: a resumed training divides its steps as before."""
_REASON_CHARS = 500
UNLIMITED = 2**40
"""Tokens of a micro-batch that is limited by its rows alone."""
IDLE = Example(input_ids=np.full(2, USUAL_TOKEN), labels=np.full(2, USUAL_TOKEN))
"""Example of a rank that has none left while others do; its loss does not count."""


@dataclass(kw_only=True)
class Passes:
    """The passes of one model on its device."""

    model: PeftModel
    room: Room | None
    """The largest micro-batch; ``None`` until it is found by trial."""
    longest: int
    """Tokens of the longest example."""
    head: Head | None
    """Computes the loss without all logits; ``None`` where the model's own loss is taken."""
    compiled: bool = False
    known: KnownRooms | None = None
    """The rooms that earlier trainings found on this machine."""
    tried: bool = False
    """Whether the trial before the first step is over."""
    sharing: bool = False
    """Whether the ranks share the base model's weights: each layer's pass is then a pass of all ranks."""
    agreed: bool = False
    """Whether the ranks have agreed on the room."""

    @classmethod
    def of(
        cls,
        model: PeftModel,
        training: TrainingHyperparams,
        lengths: npt.NDArray[np.int64],
        *,
        halvings: int,
        kernels: Kernels,
        resume_from: Path | None,
        sharing: bool,
    ) -> Self:
        """Choose how to compute examples of so many tokens each, and log each choice with its reason."""
        return cls(
            model=model,
            longest=int(lengths.max(initial=1)),
            room=_kept_room(resume_from) or _configured_room(training, halvings=halvings),
            head=choose_head(model, kernels, sharing=sharing),
            compiled=worth_compiling(model, int(lengths.sum()), kernels),
            # Ranks that share weights must all make the same trial.
            known=KnownRooms(folder=Path(kernels.rooms)) if kernels.rooms and not sharing else None,
            sharing=sharing,
        )

    def step(
        self, trainer: Trainer, model: nn.Module, examples: Sequence[Example], *, learned: int
    ) -> torch.Tensor:
        """Add this rank's part of the gradient of the step's mean loss per token; return its part of it.

        ``examples`` are those of all ranks, and ``learned`` counts their tokens. Where memory runs out, the
        rank begins the step anew with smaller micro-batches.
        """
        room = self._agreed_room(trainer, model)
        shares = dealt(_lengths(examples), trainer.args.world_size)
        rows = [[examples[number] for number in share] for share in shares]
        mine = rows[trainer.args.process_index]
        while True:
            # Each pass through shared weights is one of all ranks.
            passes = max(len(room.parts(_lengths(share))) for share in rows) if self.sharing else 0
            try:
                with typed_out_of_memory():
                    return self._add(trainer, model, mine, room, learned=learned, passes=passes)
            except OutOfMemory as error:
                # With shared weights the other ranks are within the same pass.
                smaller = None if self.sharing else room.halved()
                if smaller is None:
                    raise
                logger.warning("micro-batches are halved because memory ran out: %s", error)
            self._forget(model)
            room = self.room = smaller
            self._remember(trainer)

    def save(self, folder: Path) -> None:
        """Write the room into a checkpoint's folder."""
        if self.room is not None:
            (folder / ROOM_FILE).write_text(json.dumps(asdict(self.room)), encoding="utf-8")

    def _agreed_room(self, trainer: Trainer, model: nn.Module) -> Room:
        """Return the room, which is before the first step that of the rank with the least."""
        room = self._tried_room(trainer, model)
        if not self.agreed:
            self.room, self.agreed = smallest(room), True
        return self.room or room

    def _tried_room(self, trainer: Trainer, model: nn.Module) -> Room:
        """Return the room, after a trial before the first step where memory or a compiler may fail."""
        if self.room is not None and (self.tried or not self.compiled):
            return self.room
        started, self.tried, head = time.monotonic(), True, self.head
        try:
            self.room = self._trial(trainer, model)
        except OutOfMemory:
            raise
        except Exception as error:
            if not self.compiled:
                raise
            logger.warning("layers=eager because compiling them failed: %s", str(error)[:_REASON_CHARS])
            uncompiled(model)
            self.compiled, self.head = False, head
            self._forget(model)
            self.room = self._trial(trainer, model)
        self._forget(model)
        logger.info("the trial of micro-batches took %.1f s", time.monotonic() - started)
        return self.room

    def _trial(self, trainer: Trainer, model: nn.Module) -> Room:
        if self.compiled:
            self._compile()
        run = functools.partial(self._add, trainer, model, learned=1)
        with typed_out_of_memory():
            if self.room is not None:
                return proved(run, self.room, self.longest)
            known = None if self.known is None else self.known.find(self._key(trainer))
            if known is not None:
                # What is compiled has to be tried all the same, and a step that fails halves the room.
                return proved(run, known, self.longest) if self.compiled else known
            rows = trainer.args.per_device_train_batch_size
            self.room = find_room(run, longest=self.longest, rows=rows, device=trainer.args.device)
            self._remember(trainer)
            return self.room

    def _remember(self, trainer: Trainer) -> None:
        """Keep the room for later trainings of this kind, if it was found on a device by trial."""
        if self.known is not None and self.room is not None and trainer.args.device.type == "cuda":
            self.known.keep(self._key(trainer), self.room)

    def _key(self, trainer: Trainer) -> str:
        kernels = f"{'model' if self.head is None else 'chunked'}, {'compiled' if self.compiled else 'eager'}"
        rows = trainer.args.per_device_train_batch_size
        return room_key(
            self.model, longest=self.longest, rows=rows, kernels=kernels, device=trainer.args.device
        )

    def _compile(self) -> None:
        # With it the first layer's input wants a gradient as all others do, so that they share a graph.
        base_of(self.model).enable_input_require_grads()
        compile_layers(self.model)
        self.head = None if self.head is None else compiled_head(self.head)

    def _add(
        self,
        trainer: Trainer,
        model: nn.Module,
        examples: Sequence[Example],
        room: Room,
        *,
        learned: int,
        passes: int = 0,
    ) -> torch.Tensor:
        """Add the gradient of the examples, in at least so many ``passes``; return their part of the loss."""
        device = trainer.args.device
        total = torch.zeros((), device=device)
        batches = list(micro_batches(examples, room, device=device))
        counting = len(batches)
        for _ in range(passes - counting):
            batches += micro_batches([IDLE], room, device=device)
        # Accelerate's sharing averages the gradients of the ranks.
        ranks = trainer.args.world_size if self.sharing else 1
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with trainer.accelerator.no_sync(model) if not last else contextlib.nullcontext():
                with trainer.compute_loss_context_manager(), self._kernels(batch, room):
                    loss = self._loss(trainer, model, batch, learned) * (number <= counting)
                trainer.accelerator.backward(loss * ranks)
            total += loss.detach()
            if not last:
                trainer.control = trainer.callback_handler.on_substep_end(
                    trainer.args, trainer.state, trainer.control
                )
        return total

    def _loss(self, trainer: Trainer, model: nn.Module, batch: MicroBatch, learned: int) -> torch.Tensor:
        """Return the micro-batch's share of the mean loss."""
        if self.head is not None:
            return self.head.loss(batch.input_ids, batch.learned, batch.targets) / learned
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
        }
        if trainer.model_accepts_loss_kwargs:
            share: torch.Tensor = model(**inputs, num_items_in_batch=learned).loss
        else:
            share = model(**inputs).loss * (len(batch.targets) / learned)
        return share

    def _kernels(self, batch: MicroBatch, room: Room) -> AbstractContextManager[None]:
        """Return how a micro-batch computes: a single row among larger ones is not worth compiling."""
        alone = self.compiled and len(batch.input_ids) == 1 and room.rows > 1
        return eagerly() if alone else contextlib.nullcontext()

    def _forget(self, model: nn.Module) -> None:
        """Drop the gradients of passes that do not count."""
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _lengths(examples: Sequence[Example]) -> list[int]:
    return [len(example.input_ids) for example in examples]


def _configured_room(training: TrainingHyperparams, *, halvings: int) -> Room | None:
    """Return the configured micro-batch, halved where memory ran out; ``None`` on CUDA, where it is tried."""
    if torch.cuda.is_available() and not halvings:
        return None
    return Room(rows=max(1, training.batch_size >> halvings), tokens=UNLIMITED)


def _kept_room(checkpoint: Path | None) -> Room | None:
    path = None if checkpoint is None else checkpoint / ROOM_FILE
    if path is None or not path.is_file():
        return None
    return Room(**json.loads(path.read_text(encoding="utf-8")))
