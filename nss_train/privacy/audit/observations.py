"""The mechanism's releases in many short runs on units made to be visible."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.dpsgd.mechanism import Mechanism
from nss_train.privacy.dpsgd.poisson_sampling import Indices
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.privacy.evidence.likelihood import NORM, Floats

CANARIES = CROWD = 256
"""Number of units that are alone in their coordinate, and of units that share one."""
UNITS = CANARIES + CROWD
WIDTH = 2 * CANARIES + 1
"""Number of coordinates: one per canary, one per canary outside the data, and the crowd's."""
MakeMechanism = Callable[[PrivacyPlan, Sequence[torch.Tensor]], Mechanism]


@dataclass(frozen=True, kw_only=True, slots=True)
class Observations:
    """Released values along the units' gradients, in units of the clip, summed over the batch.

    Each run is a mechanism of its own. All begin with the same public seed, and each is followed by a
    replay without data, as an attacker who knows the seed could make it.
    """

    inside: Floats
    """Values of canaries in the data; shape (runs, steps, canaries)."""
    outside: Floats
    """Values of as many canaries that are not in the data."""
    crowd: Floats
    """Values of all units of the crowd together; shape (runs, steps)."""
    replay_inside: Floats
    """Replayed values where canaries would be, in the shape of ``inside``."""
    replay_outside: Floats


def real(plan: PrivacyPlan, parameters: Sequence[torch.Tensor]) -> Mechanism:
    """Return the mechanism that really trains."""
    return Mechanism.of(plan, parameters, units=plan.units, randomness=SecretRandomness())


def observe(make: MakeMechanism, plan: PrivacyPlan, *, runs: int) -> Observations:
    """Run the mechanism ``runs`` times, each with a replay, and return its releases."""
    pairs = [(_run(make, plan), _run(make, plan, replay=True)) for _ in range(runs)]
    released, replayed = (np.stack(side) for side in zip(*pairs, strict=True))
    return Observations(
        inside=released[..., :CANARIES],
        outside=released[..., CANARIES:-1],
        crowd=released[..., -1],
        replay_inside=replayed[..., :CANARIES],
        replay_outside=replayed[..., CANARIES:-1],
    )


def _run(make: MakeMechanism, plan: PrivacyPlan, *, replay: bool = False) -> Floats:
    """Return the releases of one run; shape (steps, coordinates)."""
    parameters = [torch.zeros(WIDTH), torch.zeros(WIDTH, 1)]
    with _same_public_state():
        mechanism = make(plan, parameters)
        return np.stack([_step(mechanism, plan, replay=replay) for _ in range(plan.steps)])


def _step(mechanism: Mechanism, plan: PrivacyPlan, *, replay: bool) -> Floats:
    """Take a step as the trainer does, in two micro-batches; a replay adds no units."""
    drawn = mechanism.draw()
    for units in [] if replay else np.array_split(drawn, 2):
        if len(units):
            mechanism.gradients.add(*_gradients(units, plan))
    first, second = (part.flatten().double().numpy() for part in mechanism.release())
    along: Floats = (first + second) / math.sqrt(2) * plan.batch / plan.clip
    return along


def _gradients(units: Indices, plan: PrivacyPlan) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return two rows per unit, in two tensors: clipping rows, or tensors, would let too much through."""
    coordinates = torch.from_numpy(np.where(units < CANARIES, units, WIDTH - 1)).repeat_interleave(2)
    rows = torch.zeros(len(coordinates), WIDTH)
    rows[torch.arange(len(coordinates)), coordinates] = NORM * plan.clip / (2 * math.sqrt(2))
    return [rows, rows[..., None]], torch.arange(len(units)).repeat_interleave(2)


@contextmanager
def _same_public_state() -> Iterator[None]:
    """Restore the generators of Python, NumPy and Torch afterwards, as if a job had seeded them anew.

    A mechanism that draws its secrets from them draws the same in every run.
    """
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
