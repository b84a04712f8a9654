"""The pace of a private training: per-unit clipped gradients, noise, and the trial before the first step."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PeftModel

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.guarantee import Clock
from nss_train.contract import Kernels
from nss_train.cost.measuring import ENOUGH_S, MOST_TOKENS, PASSES, STEPS, USUAL_TOKEN, now, tried_width
from nss_train.cost.pace import Pace
from nss_train.cost.work import Work
from nss_train.model.tokenizer import IGNORED_LABEL
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.coupling.trial import Trial
from nss_train.privacy.dpsgd.gradients.micro_batches import MicroBatch, Shapes, UnitExamples
from nss_train.privacy.dpsgd.gradients.passes import Passes
from nss_train.privacy.dpsgd.gradients.repeatable import repeatable_kernels
from nss_train.privacy.dpsgd.mechanism import Mechanism
from nss_train.privacy.dpsgd.private import Private, shapes_for
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.ranks.group import group_state
from nss_train.training.seeding import public_luck
from nss_train.training.steps.kernels import choose_head


def private_pace(model: PeftModel, config: SafeSynthesizerParameters, work: Work, plan: PrivacyPlan) -> Pace:
    """Measure the parts of a private step over invented units of the usual length."""
    private = Private(plan=plan, unit_of=np.zeros(0, dtype=np.int64), longest=work.context_tokens)
    shapes = shapes_for(model, private, config, prompt=work.prompt_tokens, halvings=0)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=_mixed_precision())
    head = choose_head(model, Kernels(), sharing=False)
    passes = Passes(model, device=group_state().device, autocast=accelerator.autocast, head=head)
    try:
        with public_luck(0), repeatable_kernels(passes.device):
            before = _trial_s(passes, shapes, config, work, plan)
            mechanism = Mechanism.of(plan, passes.weights, units=1, randomness=SecretRandomness())
            batch = _batch(passes, work, shapes)
            token = _timed(lambda: mechanism.add_clipped(passes.gradients(batch))) / batch.input_ids.numel()
            step = _timed(lambda: _step(mechanism, passes))
    finally:
        passes.close()
    return Pace(before_s=before, step_s=step, token_s=token * _padding(work, shapes), width=tried_width(work))


def _trial_s(
    passes: Passes, shapes: Shapes, config: SafeSynthesizerParameters, work: Work, plan: PrivacyPlan
) -> float:
    """Return the seconds of the trial before the first step, by running it."""
    began = now()
    Trial.of(
        passes,
        shapes,
        plan,
        name=config.training.pretrained_model,
        prompt=work.prompt_tokens,
        most_rows=1,
        dtype=torch.bfloat16 if _mixed_precision() == "bf16" else passes.model.dtype,
        clock=Clock.COARSE,
        randomness=SecretRandomness(),
    )
    return now() - began


def _batch(passes: Passes, work: Work, shapes: Shapes) -> MicroBatch:
    """Return as many rows of the usual length as the probe has time for."""
    length = tried_width(work)
    width = int(shapes.widths_of(np.asarray([length]))[0])
    rows = max(1, min(shapes.rows_at(width), MOST_TOKENS // width))
    learned = max(1, length - work.prompt_tokens)
    labels = [IGNORED_LABEL] * (length - learned) + [USUAL_TOKEN] * learned
    examples = Dataset.from_dict({"input_ids": [[USUAL_TOKEN] * length] * rows, "labels": [labels] * rows})
    units = UnitExamples(examples, np.arange(rows), pad_id=0, prompt=length - learned)
    (found,) = units.micro_batches(
        np.arange(rows), Shapes(longest=shapes.longest, tokens=rows * width, rows=rows)
    )
    return found.to(passes.device)


def _step(mechanism: Mechanism, passes: Passes) -> None:
    """Add noise and run an optimizer step, whose result is not kept."""
    gradients = mechanism.release()
    for weight, gradient in zip(passes.weights, gradients, strict=True):
        weight.grad = gradient.to(weight.dtype)
    torch.optim.AdamW(passes.weights).step()


def _padding(work: Work, shapes: Shapes) -> float:
    """Return the computed tokens per token of a row, with padding: the last micro-batch is not full."""
    width = int(shapes.widths_of(np.asarray([min(round(work.row_tokens), shapes.longest)]))[0])
    rows = shapes.rows_at(width)
    batches = work.rows_per_step / rows + (0.5 if rows > 1 else 0.0)
    return batches * rows * width / (work.rows_per_step * work.row_tokens)


def _timed(do: Callable[[], object]) -> float:
    """Return the median seconds of a run; the first run is not timed."""
    do()
    found: list[float] = []
    while len(found) < PASSES * STEPS and sum(found) < ENOUGH_S:
        began = now()
        do()
        found.append(now() - began)
    return statistics.median(found)


def _mixed_precision() -> str:
    cuda = torch.cuda.is_available()
    return "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
