"""The cost of a training, for people and for machines. Needs neither torch nor a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict

from nss_train.text.counted import counted
from nss_train.text.durations import duration

COST = "cost"
"""Key among the figures of prepare_data, which has no time yet, and of load_model, which has measured."""
FEW_STEPS = 16
"""Fewest steps at a full learning rate that teach anything: Adam moves a weight by about the rate in
each step at most (Kingma and Ba 2015, arXiv 1412.6980, §2.1). At the usual 5e-4 LoRA's B, which begins at
zero, stays within 0.008: less than half of the deviation, 0.02, that base models are initialised with."""
LONG_S = 3 * 3600.0
"""Time in seconds from which a person does not wait for the end, and should have been asked."""
CPU = "cpu"


class Cost(BaseModel):
    """The cost of a training. If it is private, the cost follows from public numbers alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may add fields

    steps: int
    """Number of optimizer steps."""
    full_steps: float
    """Number of steps at a full learning rate; a step of the warm-up counts as its share of it."""
    tokens: int
    """Tokens that are trained on, repeated ones included; expected from public facts if private."""
    memory_bytes: int | None = None
    """Memory of the training process, on a CPU at its peak; ``None`` for an unknown architecture."""
    seconds: float | None = None
    """Seconds of the whole train stage; ``None``: not measured."""
    device: str | None = None
    """The device that was measured, such as ``cpu, 2 threads``."""

    @classmethod
    def among(cls, figures: Mapping[str, object]) -> Self | None:
        """Return the cost that a stage reports; ``None`` if it reports none, as in older releases."""
        return cls.model_validate(figures[COST]) if figures.get(COST) else None

    def __str__(self) -> str:
        told = [counted(self.steps, "step"), f"about {self.tokens:,} tokens"]
        if self.memory_bytes is not None:
            told.append(f"{self.memory_bytes / 2**30:.1f} GiB")
        told.append("time not measured" if self.seconds is None else self._time())
        return ", ".join(told)

    def _time(self) -> str:
        return f"about {duration(self.seconds or 0.0)} on {self.device}"

    @property
    def moves_nothing(self) -> bool:
        """Return whether every step has a learning rate of zero."""
        return self.full_steps <= 0

    @property
    def is_too_short(self) -> bool:
        """Return whether too little is trained for a useful result."""
        return self.full_steps < FEW_STEPS

    @property
    def is_long(self) -> bool:
        """Return whether the training takes hours, and on a CPU."""
        on_cpu = self.device is not None and self.device.startswith(CPU)
        return on_cpu and self.seconds is not None and self.seconds >= LONG_S

    def warnings(self) -> Iterator[str]:
        """Yield reasons why the result will be useless on any device."""
        remedy = (
            "raise training.num_input_records_to_sample, lower training.batch_size or "
            "training.gradient_accumulation_steps, or set training.warmup_steps to 0"
        )
        if self.moves_nothing:
            yield f"{self._steps()}, all of them warm-up from a learning rate of 0: nothing moves; {remedy}"
        elif self.is_too_short:
            yield f"{self._steps()}: fewer than {FEW_STEPS} teach next to nothing; {remedy}"

    def _steps(self) -> str:
        return counted(self.steps, "optimizer step")
