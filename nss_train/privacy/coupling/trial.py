"""A trial before a training sees a real unit: couplings, times, and whether memory suffices."""

from __future__ import annotations

import logging
import math
import statistics
from dataclasses import dataclass
from typing import Any

import torch

from nss_train.config.sections.guarantee import Clock
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.accounting.result import Coupling
from nss_train.privacy.coupling.coupling import Subject, check_couplings, check_declared, most_drawn
from nss_train.privacy.coupling.invented import Invented
from nss_train.privacy.coupling.probe import Probe
from nss_train.privacy.dpsgd.gradients.micro_batches import Shapes
from nss_train.privacy.dpsgd.gradients.passes import Passes
from nss_train.privacy.dpsgd.mechanism import Mechanism
from nss_train.privacy.dpsgd.noise_ahead import drawing_ahead
from nss_train.privacy.dpsgd.poisson_sampling import from_first_rank
from nss_train.privacy.dpsgd.progress import Marks
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.ranks.group import group_state

logger = logging.getLogger(__name__)

CPU_TOKENS = 128
"""Most tokens of a row tried on a CPU, which takes seconds per thousand tokens of a small model.

A CPU's memory is the machine's; on a GPU, where memory runs out, the longest possible row is tried."""
OVERRUN = 1e-6
"""Probability that a step draws more units than a slot has time for."""
SPARE = 1.25
"""Ratio of a slot's length to the measured time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """The results of a trial, which follow from invented units, hence from public facts."""

    coupling: Coupling
    marks: Marks
    slot_s: float | None
    """Length of the slot that each step takes; ``None`` where steps are not paced."""

    @classmethod
    def of(
        cls,
        passes: Passes,
        shapes: Shapes,
        plan: PrivacyPlan,
        *,
        name: str,
        prompt: int,
        most_rows: int,
        dtype: torch.dtype,
        clock: Clock,
        randomness: SecretRandomness,
    ) -> Trial:
        """Take invented units through the model; if memory runs out at all, it does so here."""
        # Only slots need the longest rows' time, whatever measuring it costs.
        tried = shapes if clock is Clock.PACED else _tried(shapes, passes.device)
        config: Any = passes.model.config
        invented = Invented.of(
            tried, prompt=prompt, vocabulary=config.vocab_size, pad_id=config.pad_token_id or 0
        )
        probe = Probe(passes, tried)
        subject = Subject(passes=passes, probe=probe, invented=invented, name=name, dtype=dtype)
        coupling = _of_all_ranks(check_couplings(subject, drawn=most_drawn(plan)))
        check_declared(plan, coupling)
        batch_s = {kind: statistics.median(probe.seconds[width]) for kind, width in invented.widths.items()}
        rows = {kind: tried.rows_at(width) for kind, width in invented.widths.items()}
        times = _Times(batch_s=batch_s, rows=rows, **_release(plan, passes, randomness))
        step_s, slot_s = times.usual_s(plan), times.worst_s(plan, most_rows=most_rows)
        logger.info(
            "a step takes about %.3g s because invented units of middle length took so long",
            step_s,
            extra={"action": "privacy.step_time", "step_s": step_s},
        )
        agreed = from_first_rank(torch.tensor([step_s, slot_s], dtype=torch.float64)).tolist()
        return cls(
            coupling=coupling,
            marks=Marks.of(plan.steps, step_s=agreed[0]),
            slot_s=agreed[1] if clock is Clock.PACED else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Times:
    """Times of micro-batches of the shortest, the middle and the longest rows."""

    batch_s: dict[str, float]
    rows: dict[str, int]
    release_s: float
    """Seconds of a step's noise."""
    ahead: bool
    """``True`` if a thread draws it during the step before."""

    def usual_s(self, plan: PrivacyPlan) -> float:
        """Return the time of a step of the expected number of units, each a row of middle length."""
        share = math.ceil(plan.batch / _ranks())
        batches_s = math.ceil(share / self.rows["middle"]) * self.batch_s["middle"]
        return max(batches_s, self.release_s) if self.ahead else batches_s + self.release_s

    def worst_s(self, plan: PrivacyPlan, *, most_rows: int) -> float:
        """Return the time of a step of more units than almost any step draws, each of the largest size."""
        drawn = most_drawn(plan, rare=OVERRUN)
        share = math.ceil(drawn / _ranks())
        # A unit that fits with no other is alone in its micro-batches.
        rows = self.rows["longest"]
        each = math.ceil(most_rows / rows) if most_rows > 1 else 1 / rows
        return SPARE * (math.ceil(share * each) * self.batch_s["longest"] + 2 * self.release_s)


def _ranks() -> int:
    return int(group_state().num_processes)


def _of_all_ranks(mine: Coupling) -> Coupling:
    """Return the result with the largest change of all ranks, because rank 0 adds the noise for all."""
    state = group_state()
    if state.num_processes == 1:
        return mine
    change = torch.tensor([mine.change], dtype=torch.float64, device=state.device)
    torch.distributed.all_reduce(change, op=torch.distributed.ReduceOp.MAX)
    return mine.model_copy(update={"change": float(change)})


def _tried(shapes: Shapes, device: torch.device) -> Shapes:
    if device.type != "cpu" or shapes.longest <= CPU_TOKENS:
        return shapes
    logger.info(
        "invented rows have %d tokens at most because a CPU takes long for %d",
        CPU_TOKENS,
        shapes.longest,
        extra={"action": "privacy.trial", "longest_tokens": CPU_TOKENS},
    )
    return Shapes(longest=CPU_TOKENS, tokens=shapes.tokens, rows=shapes.rows)


def _release(plan: PrivacyPlan, passes: Passes, randomness: SecretRandomness) -> dict[str, Any]:
    """Measure a step's noise, which takes the same time for any draw; return fields of :class:`_Times`."""
    started = passes.now()
    with drawing_ahead(passes.weights, randomness) as ahead:
        Mechanism.of(plan, passes.weights, units=1, randomness=randomness, ahead=ahead).release()
        return {"release_s": passes.now() - started, "ahead": ahead is not None}
