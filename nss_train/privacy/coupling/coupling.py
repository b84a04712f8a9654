"""A check, on invented units before the first private step, that no unit changes another's gradient.

A unit's gradient is clipped, so the unit moves the sum by at most C. That holds only if nothing else in the
sum moves with it: no dropout mask, no statistic of the batch, no place in an expert's queue. Couplings that
the invented units do not trigger are not found, so known kinds are refused by name as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy import stats

from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting.plan import COUNT, PrivacyPlan, Source
from nss_train.privacy.accounting.result import Coupling
from nss_train.privacy.coupling.invented import Invented
from nss_train.privacy.coupling.probe import ORIGIN, Probe, Run
from nss_train.privacy.dpsgd.gradients.passes import Passes
from nss_train.privacy.dpsgd.gradients.repeatable import lacks_repeatable_kernel

logger = logging.getLogger(__name__)

MOST_SLACK = 0.05
"""Largest slack by which the noise may grow; a model that needs more is refused."""
RARE = 1e-9
"""Probability that a step draws more units than assumed."""
TOLERANCE = {torch.float32: 1e-5}
"""Allowed relative difference from the norm of rows alone, by the products' dtype; 1e-8 was measured."""
LOW_TOLERANCE = 0.2
"""Same in lower precision, where rounding errors alone change a norm by up to 2.8e-2 (bfloat16, 30 layers).

A gradient is clipped as it was computed, so that rounding costs no privacy. Missing parts and wrong
factors show."""
_STD = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """The model under check, with its name, probe and invented units."""

    passes: Passes
    probe: Probe
    invented: Invented
    name: str
    dtype: torch.dtype
    """Precision of matrix products."""


def most_drawn(plan: PrivacyPlan, *, rare: float = RARE) -> int:
    """Return the most units that a step draws, except with probability 2 · ``rare``.

    A noisy n may be smaller than the number of units; a declared one bounds it only if it is true.
    """
    units = plan.units + math.ceil(_count_scale(plan) * math.log(1 / rare))
    return max(1, int(stats.binom.isf(rare, units, plan.sampling_rate)))


def check_declared(plan: PrivacyPlan, coupling: Coupling) -> None:
    """Raise :class:`ParameterError` for a slack whose number of drawn units rests on a declaration."""
    if coupling.slack > 0 and plan.units_source is Source.DECLARED:
        remedy = (
            f"{coupling.reason}, if the declared number is true, which nobody checks; count the units"
            " (noisy, or rows if they are records), or use eager attention in float32"
        )
        problem = Problem(field="guarantee.units", value=plan.units, remedy=remedy)
        raise ParameterError("The guarantee cannot be given.", [problem])


def _count_scale(plan: PrivacyPlan) -> float:
    """Return the scale of the noise in n; 0 for an exact n."""
    if plan.units_source is not Source.NOISY:
        return 0.0
    epsilon = sum(product.epsilon for product in plan.by_products if product.name == COUNT)
    # Two counts share the price where units are records.
    return (2 if plan.unit == "record" else 1) / epsilon


def check_couplings(subject: Subject, *, drawn: int) -> Coupling:
    """Return the coupling found, with the slack for a step of ``drawn`` units; the model stays unchanged.

    Raises :class:`ParameterError` that names the layer that couples units, or says that norms differ from
    those of rows alone, or gradients from one pass to the next.
    """
    probe, invented = subject.probe, subject.invented
    with _every_factor_moving(subject.passes), _no_state_changed(subject), _operation_named(subject):
        probe.begin(invented.units, int(invented.short[0]))
        base = Run(units=invented.units, order=invented.base, luck=0)
        seen = probe.run(base)
        change = 0.0
        for luck, (there, order) in enumerate(invented.neighbours(), 1):
            neighbour = Run(units=invented.others, order=order, luck=luck)
            found = probe.run(neighbour)
            moved = {unit: seen.moved(found, unit) for unit in there.tolist()}
            worst = max(moved, key=lambda unit: moved[unit])
            change = max(change, moved[worst], seen.beyond(found, there) / len(there))
            if change * drawn > MOST_SLACK:
                if seen.moved(probe.run(base), worst):
                    raise _unrepeatable(subject, change)
                raise _refused(subject, probe.culprit(worst, base, neighbour), change, drawn)
        for unit in (*invented.short[-2:].tolist(), int(invented.middle[0])):
            _check_norm(subject, probe.norm(seen, unit), probe.norm_alone(invented.units, unit))
    return _chosen(change, drawn, subject)


def _chosen(change: float, drawn: int, subject: Subject) -> Coupling:
    slack = change * drawn
    reason = (
        "no invented unit changed a bit of another's gradient"
        if slack == 0
        else f"one unit moved another's gradient by {change:.2g} C, and a step draws {drawn} at most"
    )
    fields = {"action": "privacy.coupling", "parameter": "slack", "value": slack}
    logger.info("slack=%.3g because %s", slack, reason, extra=fields)
    return Coupling(
        change=change,
        drawn_at_most=drawn,
        units=len(subject.invented.base),
        longest_tokens=subject.invented.widths["longest"],
        reason=reason,
    )


def _check_norm(subject: Subject, norm: float, alone: float) -> None:
    allowed = TOLERANCE.get(subject.dtype, LOW_TOLERANCE)
    if abs(norm - alone) > allowed * alone:
        remedy = (
            f"a unit's gradient has the norm {norm:.6g} among others and {alone:.6g} alone, so that it would"
            " not be clipped as it must; take another, or other training.lora_target_modules"
        )
        raise _error(subject, remedy)


def _refused(subject: Subject, layer: str, change: float, drawn: int) -> ParameterError:
    remedy = (
        f"this model's {layer} lets one row change another's gradient (by {change:.2g} C, "
        f"{MOST_SLACK / drawn:.2g} C is allowed); take another, or eager attention in float32"
    )
    return _error(subject, remedy)


def _unrepeatable(subject: Subject, change: float) -> ParameterError:
    remedy = (
        f"this model's gradients differ from one pass to the next on this device (by {change:.2g} C), so that"
        " nobody can tell whether rows change one another's; take another, or training.attn_implementation"
        " eager"
    )
    return _error(subject, remedy)


@contextmanager
def _operation_named(subject: Subject) -> Iterator[None]:
    """Refuse a model with an operation that has no deterministic kernel on its device."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_repeatable_kernel(error):
            raise
        operation = str(error).split(maxsplit=1)[0]
        remedy = f"this model needs {operation}, whose results differ from one pass to the next; take another"
        raise _error(subject, remedy) from error


def _error(subject: Subject, remedy: str) -> ParameterError:
    problem = Problem(field="training.pretrained_model", value=subject.name, remedy=remedy)
    return ParameterError("The base model cannot be trained privately.", [problem])


@contextmanager
def _every_factor_moving(passes: Passes) -> Iterator[None]:
    """Give values to all-zero weights: while B is zero, A has no gradient that could reveal a coupling."""
    still = [weight for weight in passes.weights if not weight.detach().any()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in still:
            weight.copy_(_STD * torch.randn(weight.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight in still:
                weight.zero_()


@contextmanager
def _no_state_changed(subject: Subject) -> Iterator[None]:
    """Refuse layers that keep state from their inputs, as it would affect the next unit.

    Such state causes any other finding, and is reported instead of it.
    """
    model = subject.passes.model
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        yield
    except ParameterError as error:
        _check_state(subject, before, error)
        raise
    else:
        _check_state(subject, before, None)
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in before and buffer.shape == before[name].shape:
                    buffer.copy_(before[name])


def _check_state(subject: Subject, before: dict[str, torch.Tensor], cause: ParameterError | None) -> None:
    after = dict(subject.passes.model.named_buffers())
    changed = [name for name, kept in before.items() if not torch.equal(kept, after[name])]
    if changed:
        layer = changed[0].removeprefix(ORIGIN).rpartition(".")[0]
        remedy = f"this model's {layer} remembers the rows that it has seen; take another"
        raise _error(subject, remedy) from cause
